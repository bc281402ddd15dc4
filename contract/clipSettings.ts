/**
 * What a clip's file says about how it was made: enough to make it again, nothing about the machine's folders. Kept as JSON
 * in the container's comment.
 */
import { z } from 'zod';
import { renderRequest } from './renderRequest.ts';

export const clipSettings = z.object({
  format: z.literal('vmoba-clip/1'),
  model: z.object({
    id: z.string().max(200),
    name: z.string().max(200),
    /** Identifies the weight files: see main/studio/render/modelCard.ts. */
    fingerprint: z.string().max(100),
  }),
  request: renderRequest.omit({ model: true, runAnyway: true, memoryLimitBytes: true }),
  engine: z.object({ version: z.string().max(100), build: z.string().max(100), device: z.string().max(100) }),
  /** 64-bit hash of the final latent, 16 hex digits. */
  latentHash: z.string().max(32),
});

export type ClipSettings = z.infer<typeof clipSettings>;

/** The settings in a comment text, or null where it holds none of ours. Never throws. */
export function parseClipSettings(comment: string | null): ClipSettings | null {
  if (comment === null) return null;
  try {
    return clipSettings.parse(JSON.parse(comment));
  } catch {
    return null;
  }
}
