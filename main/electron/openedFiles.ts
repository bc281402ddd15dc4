/** Clips that a person opens with the studio: from a file manager, the command line, or the menu. */
import { open, stat } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { basename, extname, isAbsolute, resolve } from 'node:path';
import type { StudioClient } from '../../contract/client.ts';
import { largestPieceBytes } from '../../contract/uploads.ts';

export const clipEndings = ['.mp4', '.webm', '.mov', '.gif', '.png'] as const;

/** The clips among a process's arguments. */
export function clipsAmong(args: readonly string[], folder: string): string[] {
  return args
    .filter((arg) => !arg.startsWith('-') && (clipEndings as readonly string[]).includes(extname(arg).toLowerCase()))
    .map((arg) => (isAbsolute(arg) ? arg : resolve(folder, arg)))
    .filter((path) => existsSync(path));
}

export interface OpenedFile {
  uploadId: string;
  name: string;
}

/** Hands a clip to the studio as any client would: paths stay outside the contract. Errors: too-large, disk-full, io. */
export async function uploadClip(client: StudioClient, path: string): Promise<OpenedFile> {
  const name = basename(path);
  const { size } = await stat(path);
  const { uploadId } = await client.call('uploads.begin', { name, bytes: size });
  const file = await open(path, 'r');
  try {
    for (let at = 0; at < size; at += largestPieceBytes) {
      const piece = Buffer.alloc(Math.min(largestPieceBytes, size - at));
      const { bytesRead } = await file.read(piece, 0, piece.length, at);
      if (bytesRead === 0) break; // it became shorter meanwhile: the studio will say that it is incomplete
      await client.call('uploads.append', { uploadId, data: piece.subarray(0, bytesRead) });
    }
    return { uploadId, name };
  } catch (error) {
    await client.call('uploads.abandon', { uploadId }).catch(() => {}); // the first error counts
    throw error;
  } finally {
    await file.close();
  }
}
