/** Takes in other formats. */
import { z } from 'zod';
import { clipFormat, done, errorShape, exportId, mediaId, nothing, rateFactor, takeId, timestamp } from './common.ts';
import { event, method } from './method.ts';

export const clipExport = z.object({
  id: exportId,
  takeId,
  format: clipFormat,
  state: z.enum(['running', 'done', 'failed', 'cancelled']),
  frames: z.int(),
  ofFrames: z.int(),
  /** The finished file (for PNG a folder) on the studio's machine, to show. */
  path: z.string(),
  /** For reading it through the host; null for a folder and before it is done. */
  mediaId: mediaId.nullable(),
  bytes: z.int().nullable(),
  error: errorShape.nullable(),
  createdAt: timestamp,
});
export type ClipExport = z.infer<typeof clipExport>;

export const exportFormat = z.object({
  format: clipFormat,
  name: z.string(),
  description: z.string(),
  ending: z.string(),
  /** Null where there is no such choice. */
  rateFactor: z.object({ default: z.number(), best: z.number(), worst: z.number() }).nullable(),
});

export const exportMethods = {
  'exports.formats': method('Formats a take can be written in.', nothing, z.object({ items: z.array(exportFormat) })),
  'exports.start': method(
    'Writes a take in a format, settings included. A file of that name is never replaced: a number is added. Errors: not-found, disk-full.',
    z.strictObject({
      takeId,
      format: clipFormat,
      rateFactor: rateFactor.optional(),
      /** A folder on the studio's machine; the export folder of the settings when absent. */
      folder: z.string().min(1).max(4096).optional(),
    }),
    clipExport,
  ),
  'exports.list': method('Exports of this session, newest first.', nothing, z.object({ items: z.array(clipExport) })),
  'exports.cancel': method(
    'Stops an export and removes what was written. Errors: not-found.',
    z.strictObject({ id: exportId }),
    done,
  ),
};

export const exportEvents = {
  'exports.changed': event('Progress and end of an export.', clipExport),
};
