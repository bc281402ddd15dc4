/** What one render is asked to be. The limits that hold for every model are here; a model's own are checked against it. */
import { z } from 'zod';
import { attentionPolicy } from './attentionPolicy.ts';

/** In UTF-8 bytes, as the engine counts. */
export const longestPromptBytes = 10_000;

const prompt = z.string().refine((text) => new TextEncoder().encode(text).length <= longestPromptBytes, {
  error: `must be at most ${longestPromptBytes} bytes long: shorten it`,
});

const side = z.int().min(16).max(8192);

export const renderRequest = z.strictObject({
  /** Folder that holds model.json. */
  model: z.string().min(1),
  prompt: prompt.refine((text) => text.trim() !== '', { error: 'is empty: say what the clip shows' }),
  negativePrompt: prompt.default(''),
  /** Pixels; a multiple of the model's side multiple. */
  width: side,
  height: side,
  /** 4k+1: the video autoencoder packs four frames into one latent frame after the first. */
  frames: z
    .int()
    .min(1)
    .max(4097)
    .refine((count) => (count - 1) % 4 === 0, {
      error: (issue) => {
        const below = Math.floor((Number(issue.input) - 1) / 4) * 4 + 1;
        return `must be 4k+1 (${below} or ${below + 4}), not ${String(issue.input)}`;
      },
    }),
  /** Frames per second of the file; the model's own pace is in its model.json. */
  fps: z.number().min(1).max(240),
  /** Denoising steps. */
  steps: z.int().min(1).max(1000),
  /** 1 means unguided and halves the work. */
  guidanceScale: z.number().min(0).max(100),
  /** Timestep shift of the flow schedule. */
  shift: z.number().min(0.01).max(100),
  scheduler: z.enum(['unipc', 'dpmpp', 'euler']),
  /** Unsigned 64-bit, as decimal text. */
  seed: z
    .string()
    .regex(/^\d{1,20}$/, { error: 'must be a whole number' })
    .refine((text) => !/^\d{1,20}$/.test(text) || BigInt(text) < 2n ** 64n, {
      error: 'must be a whole number from 0 to 18446744073709551615',
    }),
  policy: attentionPolicy,
  precision: z.enum(['auto', 'f32', 'bf16']).optional(),
  /** Device id as the engine describes it: "cpu", "cuda:0". */
  device: z.string().min(1).max(100).optional(),
  /** 0 = all cores. */
  threads: z.int().min(0).max(1024).optional(),
  memoryLimitBytes: z.int().min(0).optional(),
  /** Render although the plan exceeds the memory limit. */
  runAnyway: z.boolean().optional(),
});

export type RenderRequest = z.infer<typeof renderRequest>;

/** What a model was made for, from its model.json. Sizes outside the trained range work and look worse. */
export const modelLimits = z.object({
  sideMultiple: z.int().min(1).max(256).default(16),
  minSide: z.int().optional(),
  maxTrainedSide: z.int().optional(),
  minFrames: z.int().optional(),
  maxTrainedFrames: z.int().optional(),
});

export type ModelLimits = z.infer<typeof modelLimits>;
