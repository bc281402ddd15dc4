/** A file as an HTTP answer: whole, a range of it, or the word that nothing has changed. The same over HTTP and Electron's protocol. */
import { createReadStream } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { extname } from 'node:path';
import type { Readable } from 'node:stream';
import { pageHeaders } from './pagePolicy.ts';

export interface FileQuestion {
  method: 'GET' | 'HEAD';
  /** Headers of the request, null where absent. */
  range: string | null;
  ifRange: string | null;
  ifNoneMatch: string | null;
}

export interface FileAnswer {
  status: 200 | 206 | 304 | 404 | 416;
  headers: Record<string, string>;
  /** Null for an answer without a body. Whoever gets it reads it or destroys it. */
  body: Readable | null;
}

/** Everything the studio hands to a browser; what is not here is only bytes. */
const types: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.webp': 'image/webp',
  '.ico': 'image/x-icon',
  '.gif': 'image/gif',
  '.woff2': 'font/woff2',
  '.wasm': 'application/wasm',
  '.mp4': 'video/mp4',
  '.webm': 'video/webm',
  '.mov': 'video/quicktime',
};

export const notFound: FileAnswer = { status: 404, headers: { ...pageHeaders, 'content-length': '0' }, body: null };

/**
 * @param cache Value of Cache-Control.
 * Never rejects for what the question holds: a range that cannot be satisfied, or several, is 416; a file that is none, 404.
 */
export async function answerWithFile(path: string, question: FileQuestion, cache: string): Promise<FileAnswer> {
  const file = await open(path, 'r').catch(() => null);
  if (!file) return notFound;
  let handedOver = false;
  try {
    const info = await file.stat();
    if (!info.isFile()) return notFound;
    const etag = `"${info.size.toString(36)}-${Math.round(info.mtimeMs).toString(36)}"`;
    const headers: Record<string, string> = {
      ...pageHeaders,
      'content-type': types[extname(path).toLowerCase()] ?? 'application/octet-stream',
      'accept-ranges': 'bytes',
      'cache-control': cache,
      etag,
    };
    if (question.ifNoneMatch === etag) return { status: 304, headers, body: null };
    const stale = question.ifRange !== null && question.ifRange !== etag;
    const range = question.range === null || stale ? 'whole' : parseRange(question.range, info.size);
    if (range === 'unsatisfiable') {
      return {
        status: 416,
        headers: { ...headers, 'content-range': `bytes */${info.size}`, 'content-length': '0' },
        body: null,
      };
    }
    const { start, end } = range === 'whole' ? { start: 0, end: info.size - 1 } : range;
    headers['content-length'] = String(end - start + 1);
    if (range !== 'whole') headers['content-range'] = `bytes ${start}-${end}/${info.size}`;
    const status = range === 'whole' ? 200 : 206;
    if (question.method === 'HEAD' || info.size === 0) return { status, headers, body: null };
    handedOver = true;
    return { status, headers, body: streamOf(file, start, end) };
  } finally {
    if (!handedOver) await file.close();
  }
}

const streamOf = (file: FileHandle, start: number, end: number): Readable =>
  createReadStream('', { fd: file, start, end, highWaterMark: 256 * 1024 });

/**
 * One range of bytes, RFC 9110 section 14. Several ranges in one request are refused: players ask for one, and answering many
 * overlapping ones is a known way to exhaust a server.
 */
export function parseRange(header: string, size: number): { start: number; end: number } | 'whole' | 'unsatisfiable' {
  const text = header.trim();
  if (!/^bytes=/i.test(text)) return 'whole'; // another unit: to be ignored
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/i.exec(text.replaceAll(' ', '')) ?? [];
  if (first === '' && last === '') return 'unsatisfiable';
  const start = first === '' ? Math.max(0, size - Number(last)) : Number(first);
  const end = first === '' || last === '' ? size - 1 : Math.min(size - 1, Number(last));
  return start <= end ? { start, end } : 'unsatisfiable';
}
