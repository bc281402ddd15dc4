/** What the engine says of a request before any work, and what policies promise for it. */
import { z } from 'zod';
import { attentionPolicy, partitionName } from './attentionPolicy.ts';

export const renderPlan = z.object({
  /** Token grid: frames, rows, columns. */
  grid: z.tuple([z.int(), z.int(), z.int()]),
  tokens: z.int(),
  latentShape: z.tuple([z.int(), z.int(), z.int(), z.int()]),
  precision: z.enum(['f32', 'bf16']),
  /** Peak bytes by phase; the peak of a render is the largest. */
  memory: z.object({
    weights: z.number(),
    encoding: z.number(),
    sampling: z.number(),
    decoding: z.number(),
    peak: z.number(),
  }),
  weightsStreamed: z.boolean(),
  decodeTiled: z.boolean(),
  fitsLimit: z.boolean(),
  /** Floating-point operations of one guided step, dense and under the policy (at the expected density). */
  flops: z.object({
    linears: z.number(),
    attentionDense: z.number(),
    attentionPolicy: z.number(),
    text: z.number(),
    decode: z.number(),
  }),
  /** Block sizes in tokens and what they promise, by partition. */
  partitions: z.array(
    z.object({
      name: partitionName,
      block: z.array(z.number()),
      blocks: z.int(),
      expectedDensity: z.number(),
    }),
  ),
  warnings: z.array(z.string()),
});

export type RenderPlan = z.infer<typeof renderPlan>;

export const policyForecast = z.object({
  name: z.string(),
  /** In words, for people. */
  description: z.string(),
  policy: attentionPolicy,
  /** Attended pairs of all pairs, averaged over layers and steps; 1 is dense. */
  expectedDensity: z.number(),
  /** Work of a dense render over work under this policy, text and decoding left out: what arithmetic allows, not a measurement. */
  flopSpeedup: z.number(),
  /** Measured on this machine for this model and size (medians of finished steps); null before that. */
  measuredSpeedup: z.number().nullable(),
});

export type PolicyForecast = z.infer<typeof policyForecast>;
