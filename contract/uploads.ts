/** Files from a client, in pieces: a dropped clip whose settings are wanted. */
import { z } from 'zod';
import { bytes, done, uploadId } from './common.ts';
import { method } from './method.ts';

export const largestUploadBytes = 4 * 1024 ** 3;
export const largestPieceBytes = 1024 * 1024;

export const uploadMethods = {
  'uploads.begin': method(
    'Starts an upload; it is removed when used, and in any case after an hour. Errors: too-large, disk-full.',
    z.strictObject({ name: z.string().max(500), bytes: z.int().min(1).max(largestUploadBytes) }),
    z.object({ uploadId }),
  ),
  'uploads.append': method(
    'The next piece. Errors: not-found, too-large for more than was announced.',
    z.strictObject({
      uploadId,
      data: bytes.refine((data) => data.length <= largestPieceBytes, { error: 'is larger than 1 MiB' }),
    }),
    z.object({ received: z.int() }),
  ),
  'uploads.abandon': method('Removes an upload.', z.strictObject({ uploadId }), done),
};
