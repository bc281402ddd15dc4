/**
 * Attention maps of a render in a file of their own, beside the clip: records one after another, so that one is appended while
 * rendering and a torn end costs only itself.
 *
 *   record:  u32 header length · u32 data length · header JSON (MapsHeader) · zstd of the float32 data
 *
 * Shares of attention keep 12 significant bits; block numbers are exact.
 */
import { closeSync, fstatSync, openSync, readSync, truncateSync } from 'node:fs';
import { appendFile } from 'node:fs/promises';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { type MapsHeader, mapsHeader } from '../../../contract/statistics.ts';

const largestHeaderBytes = 1024 * 1024;
const largestDataBytes = 1024 * 1024 * 1024;

/** Parts that hold numbers of things, not shares. */
const exactParts: readonly string[] = ['blockOfToken'];

export async function appendMaps(path: string, header: MapsHeader, data: Uint8Array): Promise<void> {
  const rounded = new Uint32Array(data.slice().buffer);
  for (const part of header.parts) {
    if (exactParts.includes(part.name)) continue;
    const end = part.offset + part.shape.reduce((product, size) => product * size, 1);
    for (let at = part.offset; at < end && at < rounded.length; at++)
      rounded[at] = (rounded[at] as number) & 0xfffff000;
  }
  const head = Buffer.from(JSON.stringify(header));
  const body = zstdCompressSync(Buffer.from(rounded.buffer));
  const lengths = Buffer.alloc(8);
  lengths.writeUInt32LE(head.length, 0);
  lengths.writeUInt32LE(body.length, 4);
  await appendFile(path, Buffer.concat([lengths, head, body]));
}

interface MapsRecord {
  header: MapsHeader;
  /** Of the compressed data in the file. */
  offset: number;
  bytes: number;
}

/** What a file holds; a record written twice (a step done again after an interruption) counts once, the last. */
export const listMaps = (path: string): MapsRecord[] => scan(path).records;

/** Cuts a torn end off, which would swallow the record that is appended next. */
export const dropTornEnd = (path: string): void => truncateSync(path, scan(path).wholeBytes);

function scan(path: string): { records: MapsRecord[]; wholeBytes: number } {
  const file = openSync(path, 'r');
  try {
    const { size } = fstatSync(file);
    const records = new Map<string, MapsRecord>();
    const lengths = Buffer.alloc(8);
    let at = 0;
    while (at + 8 <= size) {
      readSync(file, lengths, 0, 8, at);
      const headBytes = lengths.readUInt32LE(0);
      const bytes = lengths.readUInt32LE(4);
      const offset = at + 8 + headBytes;
      if (headBytes > largestHeaderBytes || offset + bytes > size) break;
      const head = Buffer.alloc(headBytes);
      readSync(file, head, 0, headBytes, at + 8);
      const header = parseHeader(head.toString());
      if (!header) break;
      records.set(`${header.step}/${header.layer}/${header.head}`, { header, offset, bytes });
      at = offset + bytes;
    }
    return { records: [...records.values()], wholeBytes: at };
  } finally {
    closeSync(file);
  }
}

/** The maps of a step (and layer), or null. */
export function readMaps(path: string, step: number, layer?: number): { header: MapsHeader; data: Uint8Array } | null {
  const record = listMaps(path).find(
    ({ header }) => header.step === step && (layer === undefined || header.layer === layer),
  );
  if (!record) return null;
  const file = openSync(path, 'r');
  try {
    const body = Buffer.alloc(record.bytes);
    readSync(file, body, 0, record.bytes, record.offset);
    return {
      header: record.header,
      data: new Uint8Array(zstdDecompressSync(body, { maxOutputLength: largestDataBytes })),
    };
  } finally {
    closeSync(file);
  }
}

function parseHeader(text: string): MapsHeader | null {
  try {
    return mapsHeader.parse(JSON.parse(text));
  } catch {
    return null;
  }
}
