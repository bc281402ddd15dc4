/** What a render will cost, before it is asked for. */
import { z } from 'zod';
import { errorShape } from './common.ts';
import { method } from './method.ts';
import { renderPlan } from './plan.ts';
import { renderSettings } from './renderSettings.ts';

export const estimate = z.object({
  /** Seconds for the whole render: four of five should end within the interval. Null where nothing is known. */
  seconds: z.object({ low: z.number(), expected: z.number(), high: z.number() }).nullable(),
  /** `history`: this machine's own steps. `calibration`: a short measurement. `none`: no word on time. */
  basis: z.enum(['history', 'calibration', 'none']),
  /** Finished steps the estimate rests on. */
  samples: z.int(),
  phases: z.object({ loading: z.number(), text: z.number(), sampling: z.number(), decoding: z.number() }).nullable(),
  memoryBytes: z.number(),
  /** Of the clip and what is kept while it renders. */
  diskBytes: z.number(),
  freeDiskBytes: z.number(),
  fitsMemory: z.boolean(),
  fitsDisk: z.boolean(),
  plan: renderPlan,
  expectedDensity: z.number(),
  flopSpeedup: z.number(),
  warnings: z.array(z.string()),
});
export type Estimate = z.infer<typeof estimate>;

export const estimateMethods = {
  'estimates.get': method(
    'What a render would cost. Made for calling while someone types: settings are taken as they are, and what is wrong with them comes back as problems, by field, instead of an error.',
    z.strictObject({ settings: z.record(z.string(), z.unknown()) }),
    z.object({ problems: z.array(errorShape), estimate: estimate.nullable() }),
  ),
  'estimates.calibrate': method(
    'Times a few steps of a small render with a model, so that estimates need no history. Errors: conflict while a render runs.',
    z.strictObject({ settings: renderSettings }),
    z.object({ stepSeconds: z.number() }),
  ),
};
