import { statfs } from 'node:fs/promises';
import { StudioError } from '../../../contract/errors.ts';

/** Bytes that may still be written to the disk of a folder. Errors: io. */
export async function freeBytes(folder: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch (error) {
    throw new StudioError('io', `${folder}: ${(error as Error).message}`, { cause: error });
  }
}
