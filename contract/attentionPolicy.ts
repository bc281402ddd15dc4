/**
 * The attention policy, version 1, as data: which layers and steps run dense or with VMoBA's block-sparse attention, and how
 * blocks are chosen (arXiv 2506.23858, section 3). The presets are the policies the interface offers by name.
 */
import { z } from 'zod';

export const partitionName = z.enum(['1d', '2d', '3d']);

const blockSide = z.int().min(1).max(4096);

export const attentionPolicy = z.strictObject({
  version: z.literal(1),
  name: z.string().min(1).max(100),
  /** `dense` ignores everything below. */
  mode: z.enum(['dense', 'topk', 'threshold']),
  scope: z.enum(['query_head', 'head_global', 'overall', 'block']).default('head_global'),
  /** `upstream` repeats the oddities of the original implementation; only verification uses it. */
  semantics: z.enum(['exact', 'upstream']).optional(),
  /** Threshold mode: the share of cumulative similarity that the kept blocks hold. From 1 on everything is kept. */
  tau: z.number().min(0).max(10).optional(),
  /** Top-k mode: the share of a partition's blocks that each query keeps. */
  kShare: z.number().gt(0).max(1).optional(),
  /** Top-k mode: blocks kept, by partition; wins over `kShare`. */
  k: z.partialRecord(partitionName, z.int().min(1).max(65535)).optional(),
  /** Block sizes in tokens: frames, [h, w], [t, h, w]. Missing ones are planned from the token grid. */
  partitions: z
    .strictObject({
      '1d': z.number().gt(0).max(4096).optional(),
      '2d': z.tuple([blockSide, blockSide]).optional(),
      '3d': z.tuple([blockSide, blockSide, blockSide]).optional(),
    })
    .optional(),
  /** Partition of layer i = cycle[i mod length]. */
  cycle: z.array(partitionName).min(1).max(64).optional(),
  /** Leading steps that run dense: a share of all steps below 1, otherwise a count. */
  denseSteps: z.number().min(0).max(1000).optional(),
  denseLayers: z.array(z.int().min(0).max(1000)).max(1000).optional(),
  /** Below this many tokens everything runs dense. */
  minimumTokens: z.int().min(0).optional(),
});

export type AttentionPolicy = z.infer<typeof attentionPolicy>;

export const policyPresets = {
  /** The reference: every query sees everything. */
  dense: { version: 1, name: 'dense', mode: 'dense', scope: 'query_head' },
  /** For ordinary checkpoints: the paper reports that thresholds are unstable without training. */
  'vmoba-training-free': {
    version: 1,
    name: 'vmoba-training-free',
    mode: 'topk',
    scope: 'query_head',
    kShare: 0.25,
    denseSteps: 0.25,
    minimumTokens: 4096,
  },
  /** For checkpoints trained with VMoBA. */
  'vmoba-trained': {
    version: 1,
    name: 'vmoba-trained',
    mode: 'threshold',
    scope: 'head_global',
    tau: 0.25,
    denseSteps: 0,
    minimumTokens: 0,
  },
} as const satisfies Record<string, AttentionPolicy>;

export type PolicyPresetName = keyof typeof policyPresets;
