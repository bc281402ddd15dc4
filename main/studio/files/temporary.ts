/** Files and folders that appear complete or not at all. */
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { failpoint } from '../failpoints.ts';

/** A hidden name beside `path`, on the same disk, that no other writer uses. */
export function temporaryBeside(path: string): string {
  return join(dirname(path), `.${basename(path)}.${randomBytes(4).toString('hex')}.part`);
}

/** All of `data` at `position`: a disk that is filling up takes a part of a write without an error. */
export async function writeAll(file: FileHandle, data: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < data.length;) {
    done += (await file.write(data, done, data.length - done, position + done)).bytesWritten;
  }
}

/** Makes the content durable and moves it into place, replacing what was there. */
export async function moveIntoPlace(temporary: string, path: string): Promise<void> {
  await sync(temporary);
  failpoint('file-written');
  await rename(temporary, path);
  failpoint('file-moved');
  await sync(dirname(path));
}

/** Like `moveIntoPlace` for a folder of files; an older folder of that name goes away. */
export async function moveFolderIntoPlace(temporary: string, path: string): Promise<void> {
  for (const name of await readdir(temporary)) await sync(join(temporary, name));
  await rm(path, { recursive: true, force: true });
  await rename(temporary, path);
  await sync(dirname(path));
}

async function sync(path: string): Promise<void> {
  if (process.platform === 'win32') return; // folders cannot be opened there, files are flushed on close
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
