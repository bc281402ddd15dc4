/** Files that clients send in pieces. They live in a folder that is emptied at every start. */
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StudioError } from '../../contract/errors.ts';
import { fileFailure } from './files/fileFailure.ts';
import { makeFolder } from './files/folders.ts';
import { writeAll } from './files/temporary.ts';
import { freeBytes } from './files/space.ts';
import { newId } from './library/ids.ts';

interface Upload {
  /** As whoever sends it calls it. */
  name: string;
  path: string;
  file: FileHandle;
  announced: number;
  received: number;
  expires: NodeJS.Timeout;
  /** Pieces are written one after another. */
  last: Promise<unknown>;
}

const keptMs = 3600_000;
const mostAtOnce = 8;

export class Uploads {
  readonly #folder: string;
  readonly #uploads = new Map<string, Upload>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Errors: rate-limited, disk-full, io. */
  async begin(name: string, bytes: number): Promise<string> {
    if (this.#uploads.size >= mostAtOnce)
      throw new StudioError('rate-limited', 'Too many uploads at once: finish one first.');
    await makeFolder(this.#folder);
    if ((await freeBytes(this.#folder)) < bytes) throw new StudioError('disk-full', `There is no room for ${name}.`);
    const id = newId('upl');
    const path = join(this.#folder, id);
    let file: FileHandle;
    try {
      file = await open(path, 'wx');
    } catch (error) {
      throw fileFailure(error, 'Receiving the file');
    }
    const expires = setTimeout(() => void this.remove(id), keptMs);
    expires.unref();
    this.#uploads.set(id, { name, path, file, announced: bytes, received: 0, expires, last: Promise.resolve() });
    return id;
  }

  /** Returns the bytes so far. Errors: not-found, too-large, disk-full, io. */
  async append(id: string, data: Uint8Array): Promise<number> {
    const upload = this.#get(id);
    const at = upload.received;
    if (at + data.length > upload.announced) throw new StudioError('too-large', 'More came than was announced.');
    upload.received += data.length;
    upload.last = upload.last.then(() => writeAll(upload.file, data, at));
    try {
      await upload.last;
    } catch (error) {
      await this.remove(id);
      throw fileFailure(error, 'Receiving the file');
    }
    return at + data.length;
  }

  /** The complete file; stays until `remove`. Errors: not-found, conflict while bytes are missing. */
  async complete(id: string): Promise<{ path: string; name: string }> {
    const upload = this.#get(id);
    await upload.last;
    if (upload.received < upload.announced)
      throw new StudioError('conflict', 'The upload is not complete.', { field: 'uploadId' });
    return { path: upload.path, name: upload.name };
  }

  async remove(id: string): Promise<void> {
    const upload = this.#uploads.get(id);
    if (!upload) return;
    this.#uploads.delete(id);
    clearTimeout(upload.expires);
    await upload.last.catch(() => {}); // told to whoever sent it
    await upload.file.close();
    await rm(upload.path, { force: true });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#uploads.keys()].map((id) => this.remove(id)));
  }

  #get(id: string): Upload {
    const upload = this.#uploads.get(id);
    if (!upload) throw new StudioError('not-found', 'There is no such upload.', { field: 'uploadId' });
    return upload;
  }
}
