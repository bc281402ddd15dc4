/** Takes: finished clips, and the trash. */
import { z } from 'zod';
import {
  clipFormat,
  done,
  mediaId,
  modelId,
  pageOf,
  pageRequest,
  projectId,
  renderId,
  takeId,
  timestamp,
  uploadId,
} from './common.ts';
import { clipSettings } from './clipSettings.ts';
import { event, method } from './method.ts';
import { renderSettings } from './renderSettings.ts';
import { speedup } from './statistics.ts';

export const take = z.object({
  id: takeId,
  renderId,
  projectId,
  /** The prompt, until someone names it. */
  name: z.string(),
  favourite: z.boolean(),
  kind: z.enum(['final', 'draft']),
  /** Everything to make it again. */
  settings: renderSettings,
  modelName: z.string(),
  clip: z.object({
    mediaId,
    format: clipFormat,
    width: z.int(),
    height: z.int(),
    frames: z.int(),
    fps: z.number(),
    bytes: z.int(),
  }),
  /** A still picture; null where none could be made. */
  posterMediaId: mediaId.nullable(),
  /** 64-bit hash of the final latent, 16 hex digits. */
  latentHash: z.string(),
  /** SHA-256 of the frames as RGB24. */
  framesHash: z.string(),
  /** Whether it is what an uninterrupted render would have given, bit by bit; if not, why. */
  bitIdentical: z.boolean(),
  differenceReason: z.string().nullable(),
  renderSeconds: z.number(),
  peakBytes: z.number(),
  meanDensity: z.number().nullable(),
  speedup,
  /** False where the file has gone from its folder. */
  fileExists: z.boolean(),
  createdAt: timestamp,
  trashedAt: timestamp.nullable(),
});
export type Take = z.infer<typeof take>;

const several = z.strictObject({ ids: z.array(takeId).min(1).max(10_000) });

export const takeMethods = {
  'takes.list': method(
    'Takes, newest first, or by name; `query` searches prompts and names word by word.',
    z.strictObject({
      query: z.string().max(1000).optional(),
      projectId: projectId.optional(),
      modelId: modelId.optional(),
      favourite: z.boolean().optional(),
      kind: z.enum(['final', 'draft']).optional(),
      /** The trash instead of the library. */
      trashed: z.boolean().default(false),
      order: z.enum(['newest', 'oldest', 'name']).default('newest'),
      ...pageRequest,
    }),
    pageOf(take),
  ),
  'takes.get': method('One take, also from the trash. Errors: not-found.', z.strictObject({ id: takeId }), take),
  'takes.update': method(
    'Renames a take, marks it, or moves it to another project. Errors: not-found.',
    z.strictObject({
      id: takeId,
      name: z.string().max(1000).optional(),
      favourite: z.boolean().optional(),
      projectId: projectId.optional(),
    }),
    take,
  ),
  'takes.trash': method('Moves takes to the trash; their files stay until it is emptied.', several, done),
  'takes.restore': method('Takes them out of the trash.', several, done),
  'takes.delete': method(
    'Deletes takes in the trash for good, files included. Errors: conflict outside the trash.',
    several,
    done,
  ),
  'takes.emptyTrash': method(
    'Deletes everything in the trash for good: takes with their files, removed renders, projects.',
    z.strictObject({}),
    z.object({ takes: z.int(), freedBytes: z.int() }),
  ),
  'takes.readSettings': method(
    'The settings that an uploaded clip carries, ours or remuxed, or those in the settings.json of exported pictures; null where there are none. `modelId` is the installed model it was made with, null where that is missing. The upload is removed. Errors: bad-clip-file for what is no clip.',
    z.strictObject({ uploadId }),
    z.object({ settings: clipSettings.nullable(), modelId: modelId.nullable() }),
  ),
};

export const takeEvents = {
  'takes.changed': event('A take is new or has changed.', take),
  'takes.removed': event('Takes were deleted for good.', z.object({ ids: z.array(takeId) })),
};
