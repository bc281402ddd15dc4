/** Frames as they are: RGB24, frame-major, rows top to bottom, nothing else. For measuring, not for watching. */
import { open, rm } from 'node:fs/promises';
import type { EncodedClip, Encoder } from '../encode/encoder.ts';
import { moveIntoPlace, temporaryBeside } from '../encode/temporary.ts';

export type RawClip = Omit<EncodedClip, 'format'> & { format: 'raw' };

export async function openRawFrames(options: {
  path: string;
  width: number;
  height: number;
  fps: number;
}): Promise<Encoder<RawClip>> {
  const temporary = temporaryBeside(options.path);
  const file = await open(temporary, 'wx');
  let bytes = 0;
  return {
    async write(rgb) {
      await file.writeFile(rgb);
      bytes += rgb.length;
    },
    async finish() {
      await file.close();
      await moveIntoPlace(temporary, options.path);
      return { ...options, format: 'raw', frames: bytes / (options.width * options.height * 3), bytes };
    },
    async abort() {
      await file.close();
      await rm(temporary, { force: true });
    },
  };
}
