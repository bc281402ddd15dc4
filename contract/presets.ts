/** Presets people save, and the attention policies on offer. */
import { z } from 'zod';
import { attentionPolicy } from './attentionPolicy.ts';
import { done, nothing, presetId, shortName, timestamp } from './common.ts';
import { event, method } from './method.ts';
import { policyForecast } from './plan.ts';
import { renderSettings, settingsChanges } from './renderSettings.ts';

/** A part of the settings under a name: a policy, a negative prompt, a size, or all of it. */
export const preset = z.object({
  id: presetId,
  name: z.string(),
  kind: z.enum(['settings', 'policy', 'negative-prompt']),
  value: settingsChanges,
  createdAt: timestamp,
});
export type Preset = z.infer<typeof preset>;

export const presetMethods = {
  'presets.list': method('Saved presets by name.', nothing, z.object({ items: z.array(preset) })),
  'presets.save': method(
    'Saves a preset; one of the same kind and name is replaced.',
    z.strictObject({ name: shortName, kind: preset.shape.kind, value: settingsChanges }),
    preset,
  ),
  'presets.delete': method('Deletes a preset for good. Errors: not-found.', z.strictObject({ id: presetId }), done),
  'policies.list': method(
    'The named policies for these settings: dense, training-free, trained (where the model brings its own policy), with what each promises.',
    z.strictObject({ settings: renderSettings }),
    z.object({ items: z.array(policyForecast) }),
  ),
  'policies.dial': method(
    'Policies from the reference to the fastest, in steps, with what each promises for these settings. `current` is the step whose policy the settings hold, null when none.',
    z.strictObject({ settings: renderSettings }),
    z.object({ items: z.array(policyForecast), current: z.int().nullable() }),
  ),
  'policies.forecast': method(
    'What one policy promises for these settings.',
    z.strictObject({ settings: renderSettings, policy: attentionPolicy }),
    policyForecast,
  ),
};

export const presetEvents = {
  'presets.changed': event('Presets have changed.', z.object({ items: z.array(preset) })),
};
