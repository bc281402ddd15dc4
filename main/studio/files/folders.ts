import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileFailure } from './fileFailure.ts';

/** Makes a folder, and those above it, where there is none. Errors: disk-full, io. */
export async function makeFolder(folder: string): Promise<void> {
  try {
    await make(folder);
  } catch (error) {
    throw fileFailure(error, `Creating ${folder}`);
  }
}

/** Not mkdir's own recursion, which never returns on systems that deny a folder with "not found" (/proc). */
async function make(folder: string): Promise<void> {
  if (await isFolder(folder)) return;
  const above = dirname(folder);
  if (above !== folder) await make(above);
  await mkdir(folder).catch(async (error: NodeJS.ErrnoException) => {
    // Somebody else may have made it meanwhile; a file in its place is in the way.
    if (error.code !== 'EEXIST' || !(await isFolder(folder))) throw error;
  });
}

const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
