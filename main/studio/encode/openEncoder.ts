/** The encoder of a format. */
import { StudioError } from '../../../contract/errors.ts';
import type { EncodeOptions, Encoder } from './encoder.ts';
import { GifEncoder } from './gifEncoder.ts';
import { PngSequence } from './pngSequence.ts';
import { VideoEncoder } from './videoEncoder.ts';

/** Starts a file. Errors: bad-request, io, disk-full, unsupported. */
export async function openEncoder(options: EncodeOptions): Promise<Encoder> {
  const { format, width, height, fps } = options;
  const size = (side: number) => Number.isInteger(side) && side >= 1 && side <= 16384;
  if (!size(width) || !size(height)) throw new StudioError('bad-request', 'A clip is 1 to 16384 pixels wide and high.');
  if (!(fps >= 1 && fps <= 240)) throw new StudioError('bad-request', 'fps must be 1 to 240.', { field: 'fps' });
  switch (format) {
    case 'gif':
      return GifEncoder.open(options);
    case 'png':
      return PngSequence.open(options);
    default:
      return VideoEncoder.open({ ...options, format });
  }
}
