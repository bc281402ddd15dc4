/** Prompts people used, and some to begin with. */
import { z } from 'zod';
import { mediaId, nothing, timestamp } from './common.ts';
import { method } from './method.ts';
import { settingsChanges } from './renderSettings.ts';

export const promptMethods = {
  'prompts.history': method(
    'Prompts of earlier renders, last used first; `query` searches word by word.',
    z.strictObject({ query: z.string().max(1000).optional(), limit: z.int().min(1).max(500).default(50) }),
    z.object({
      items: z.array(
        z.object({ prompt: z.string(), negativePrompt: z.string(), uses: z.int(), lastUsedAt: timestamp }),
      ),
    }),
  ),
  'prompts.gallery': method(
    'Prompts that show what the embedded model can do, with a clip each where one is there.',
    nothing,
    z.object({
      items: z.array(
        z.object({
          prompt: z.string(),
          settings: settingsChanges,
          clipMediaId: mediaId.nullable(),
          posterMediaId: mediaId.nullable(),
        }),
      ),
    }),
  ),
};
