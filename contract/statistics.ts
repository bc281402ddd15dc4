/** What is known of a render's steps: where the time went and what attention attended to. */
import { z } from 'zod';
import { partitionName } from './attentionPolicy.ts';
import { renderId } from './common.ts';
import { renderPlan } from './plan.ts';

export const layerStatistics = z.object({
  layer: z.int(),
  partition: partitionName.nullable(),
  dense: z.boolean(),
  /** Why this layer ran dense, in words; null where it ran sparse. */
  reason: z.string().nullable(),
  /** Attended pairs of all pairs. */
  density: z.number(),
  /** Mean blocks a query kept, and mean blocks a tile of queries needed. */
  selectedBlocks: z.number(),
  tileUnionBlocks: z.number(),
  attentionSeconds: z.number(),
  routingSeconds: z.number(),
  headDensity: z.array(z.number()),
});

export const stepStatistics = z.object({
  /** Index from 0, and how many there are. */
  step: z.int(),
  steps: z.int(),
  timestep: z.number(),
  sigma: z.number(),
  seconds: z.object({
    total: z.number(),
    linears: z.number(),
    attention: z.number(),
    routing: z.number(),
    other: z.number(),
  }),
  /** Of the branch that follows the prompt. */
  layers: z.array(layerStatistics),
  /** Peak resident bytes of the engine process so far. */
  peakBytes: z.number(),
});

export type StepStatistics = z.infer<typeof stepStatistics>;

/** A word of the prompt and the text rows it owns: the keys of the word map. */
export const promptWord = z.object({ text: z.string(), firstRow: z.int(), rows: z.int() });

export const textReport = z.object({
  tokens: z.int(),
  truncated: z.boolean(),
  words: z.array(promptWord),
  seconds: z.number(),
});

/** The measured speed-up of sparse steps; never the arithmetic one, which stands beside it. */
export const speedup = z.object({
  /** Median seconds of a dense step over median seconds of a sparse step; null where there is nothing to compare. */
  measured: z.number().nullable(),
  /** `own-steps`: this render's dense steps. `calibration`: dense steps timed once for this model, size and device. */
  against: z.enum(['own-steps', 'calibration']).nullable(),
  denseStepSeconds: z.number().nullable(),
  sparseStepSeconds: z.number().nullable(),
  /** What arithmetic allows for a step at the measured density. */
  arithmetic: z.number().nullable(),
});

export type Speedup = z.infer<typeof speedup>;

export const renderStatistics = z.object({
  renderId,
  plan: renderPlan.nullable(),
  text: textReport.nullable(),
  /** In order; steps done before an interruption are included. */
  steps: z.array(stepStatistics),
  /** Mean over layers and steps; null before the first step. */
  meanDensity: z.number().nullable(),
  speedup,
  /** Seconds by phase, over all runs of this render. */
  seconds: z.object({
    loading: z.number(),
    text: z.number(),
    sampling: z.number(),
    decoding: z.number(),
    encoding: z.number(),
    total: z.number(),
  }),
  /** Steps for which maps are kept (`renders.maps`). */
  mappedSteps: z.array(z.object({ step: z.int(), layer: z.int(), head: z.int() })),
});

export type RenderStatistics = z.infer<typeof renderStatistics>;

/** Attention maps of one step and layer: float32 arrays one after another in `data`. */
export const mapsHeader = z.object({
  step: z.int(),
  layer: z.int(),
  /** -1: mean over heads. */
  head: z.int(),
  grid: z.tuple([z.int(), z.int(), z.int()]),
  /**
   * `blockReceived` [blocks], `selectionMap` [blocks, blocks] (query block by key block), `blockOfToken` [t, h, w],
   * `wordMass` [words, t, h, w]; offset in floats.
   */
  parts: z.array(z.object({ name: z.string(), offset: z.int().min(0), shape: z.array(z.int().min(0)) })),
});

export type MapsHeader = z.infer<typeof mapsHeader>;
