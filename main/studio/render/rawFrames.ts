/** Frames as they are: RGB24, frame-major, rows top to bottom, nothing else. For measuring, not for watching. */
import { open, rm } from 'node:fs/promises';
import type { EncodedClip, Encoder } from '../encode/encoder.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { moveIntoPlace, temporaryBeside } from '../files/temporary.ts';

export type RawClip = Omit<EncodedClip, 'format'> & { format: 'raw' };

export async function openRawFrames(options: {
  path: string;
  width: number;
  height: number;
  fps: number;
}): Promise<Encoder<RawClip>> {
  const { path } = options;
  const temporary = temporaryBeside(path);
  const tried = async <Result>(work: Promise<Result>): Promise<Result> => {
    try {
      return await work;
    } catch (error) {
      throw fileFailure(error, `Writing ${path}`);
    }
  };
  const file = await tried(open(temporary, 'wx'));
  let bytes = 0;
  return {
    async write(rgb) {
      await tried(file.writeFile(rgb));
      bytes += rgb.length;
    },
    async finish() {
      await tried(file.close());
      await tried(moveIntoPlace(temporary, path));
      return { ...options, format: 'raw', frames: bytes / (options.width * options.height * 3), bytes };
    },
    async abort() {
      await file.close().catch(() => {}); // already closed when moving it failed
      await rm(temporary, { force: true });
    },
  };
}
