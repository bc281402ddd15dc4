/** SHA-256 of a file, read in pieces. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { fileFailure } from '../files/fileFailure.ts';

const reportEveryBytes = 64 * 1024 * 1024;

/** Errors: io. */
export async function hashFile(path: string, onProgress: (readBytes: number) => void = () => {}): Promise<string> {
  const hash = createHash('sha256');
  let read = 0;
  let reported = 0;
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 1024 * 1024 })) {
      hash.update(piece as Buffer);
      read += (piece as Buffer).length;
      if (read - reported < reportEveryBytes) continue;
      reported = read;
      onProgress(read);
    }
  } catch (error) {
    throw fileFailure(error, `Reading ${path}`);
  }
  return hash.digest('hex');
}
