/**
 * Finds the settings that a clip carries, in files of ours and in remuxed ones. The file may come from anywhere: what is read is
 * bounded, and what is found is only text until a schema has parsed it.
 */
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { StudioError } from '../../../contract/errors.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { isContentFailure } from './ffmpegFailure.ts';
import { openContainer } from './readFrames.ts';

/** Settings are a few KB; two of the longest prompts, escaped for GIF, stay well below this. */
export const largestSettingsBytes = 512 * 1024;
/** Comments of GIF and PNG stand near the beginning of a file. */
const searchedBytes = 4 * 1024 * 1024;

const whatIsTaken =
  'The studio takes MP4, MOV, WebM, MKV and GIF clips, and exported pictures: each PNG, and their settings.json.';

/** Begins the settings.json of a folder of pictures, which is what a comment holds, and no clip. */
const openingBrace = 0x7b;

const pngSignature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/**
 * The comment text of a clip, or a file of settings; null where there is none.
 *
 * @param name What people know the file by, for errors: bad-clip-file, io.
 */
export async function readComment(path: string, name = path): Promise<string | null> {
  try {
    const file = (await stat(path)).isDirectory() ? join(path, 'frame_0001.png') : path;
    const head = await readHead(file);
    const comment = head.subarray(0, 8).equals(pngSignature)
      ? pngComment(head)
      : head.subarray(0, 4).toString('latin1') === 'GIF8'
        ? gifComment(head)
        : head[0] === openingBrace
          ? head.toString('utf8')
          : await containerComment(file, name);
    return comment !== null && Buffer.byteLength(comment) <= largestSettingsBytes ? comment : null;
  } catch (error) {
    throw fileFailure(error, `Reading ${name}`);
  }
}

async function readHead(path: string): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const buffer = Buffer.alloc(Math.min(size, searchedBytes));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** The iTXt or tEXt chunk named Comment. */
function pngComment(png: Buffer): string | null {
  for (let at = 8; at + 12 <= png.length;) {
    const length = png.readUInt32BE(at);
    const type = png.toString('latin1', at + 4, at + 8);
    const data = png.subarray(at + 8, at + 8 + length);
    if (type === 'IDAT' || type === 'IEND' || data.length < length) return null;
    const key = 'Comment\0';
    if (data.toString('latin1', 0, key.length) === key) {
      if (type === 'tEXt') return data.toString('latin1', key.length);
      // Uncompressed, then language and translated keyword, each ended by a zero byte.
      if (type === 'iTXt' && data[key.length] === 0) {
        const language = data.indexOf(0, key.length + 2);
        const keyword = language < 0 ? -1 : data.indexOf(0, language + 1);
        if (keyword >= 0) return data.toString('utf8', keyword + 1);
      }
    }
    at += 12 + length;
  }
  return null;
}

/** The first comment extension before the second picture. */
function gifComment(gif: Buffer): string | null {
  if (gif.length < 13) return null;
  const tableBytes = (flags: number) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let at = 13 + tableBytes(gif[10] ?? 0);
  while (at + 2 < gif.length) {
    if (gif[at] === 0x21) {
      const blocks = subBlocks(gif, at + 2);
      if (!blocks) return null;
      if (gif[at + 1] === 0xfe) return blocks.data().toString('latin1');
      at = blocks.end;
    } else if (gif[at] === 0x2c) {
      const blocks = subBlocks(gif, at + 10 + tableBytes(gif[at + 9] ?? 0) + 1);
      if (!blocks) return null;
      at = blocks.end;
    } else return null;
  }
  return null;
}

function subBlocks(gif: Buffer, start: number): { data(): Buffer; end: number } | null {
  let at = start;
  for (;;) {
    const length = gif[at];
    if (length === undefined) return null;
    if (length === 0) break;
    at += 1 + length;
  }
  const data = () => {
    const parts: Buffer[] = [];
    for (let from = start; from < at; from += 1 + (gif[from] as number)) {
      parts.push(gif.subarray(from + 1, from + 1 + (gif[from] as number)));
    }
    return Buffer.concat(parts);
  };
  return { data, end: at + 1 };
}

async function containerComment(path: string, name: string): Promise<string | null> {
  const container = await openContainer(path).catch((cause: unknown) => {
    if (!isContentFailure(cause)) throw cause;
    throw new StudioError('bad-clip-file', `${name} is no clip, or a damaged one. ${whatIsTaken}`, { cause });
  });
  try {
    const entries = Object.entries(container.metadata?.getAll() ?? {});
    return entries.find(([key]) => key.toLowerCase() === 'comment')?.[1] ?? null;
  } finally {
    await container.closeInput();
  }
}
