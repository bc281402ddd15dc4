/**
 * One file over HTTP into place: goes on where it was interrupted, notices when the server's file has changed meanwhile, never
 * accepts more or fewer bytes than announced or another hash than expected, and asks the disk before it begins.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { type FileHandle, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { StudioError } from '../../../contract/errors.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { freeBytes } from '../files/space.ts';
import { moveIntoPlace, writeAll } from '../files/temporary.ts';

export interface FetchFileOptions {
  url: string;
  path: string;
  /** Known beforehand, else null. */
  sha256: string | null;
  signal: AbortSignal;
  onProgress(receivedBytes: number, totalBytes: number | null): void;
  /** Space that must stay free. */
  keepFreeBytes: number;
  retry?: Partial<RetryPolicy>;
  /** How requests go out; the system's proxy variables are the default's business. */
  fetch?: typeof fetch;
}

export interface RetryPolicy {
  /** Failures in a row without a new byte before giving up. */
  attempts: number;
  firstDelayMs: number;
  longestDelayMs: number;
  /** Silence that counts as a failure. */
  stallMs: number;
}

const defaultRetry: RetryPolicy = { attempts: 6, firstDelayMs: 1000, longestDelayMs: 60_000, stallMs: 60_000 };

/** Kept beside the unfinished file: what it is the beginning of. */
interface PartFacts {
  url: string;
  /** A strong ETag or a date, for If-Range; null: cannot be resumed. */
  validator: string | null;
  totalBytes: number | null;
}

/** Returns the file's SHA-256. Errors: cancelled, download-failed, disk-full, io. What came stays for the next attempt. */
export async function fetchFile(options: FetchFileOptions): Promise<string> {
  const retry = { ...defaultRetry, ...options.retry };
  let failures = 0;
  for (;;) {
    const before = await partBytes(options.path);
    try {
      return await attempt(options, retry);
    } catch (error) {
      if (options.signal.aborted) throw new StudioError('cancelled', 'The download was stopped.', { cause: error });
      if (!(error instanceof Transient)) throw error;
      failures = (await partBytes(options.path)) > before ? 1 : failures + 1;
      if (failures >= retry.attempts) {
        throw new StudioError('download-failed', `${options.url}: ${error.message} (tried ${failures} times).`, {
          cause: error,
        });
      }
      const delayMs = Math.min(retry.longestDelayMs, retry.firstDelayMs * 2 ** (failures - 1));
      await pause(delayMs, options.signal);
    }
  }
}

export const partPath = (path: string) => `${path}.part`;
const factsPath = (path: string) => `${path}.part.json`;

export async function discardPart(path: string): Promise<void> {
  await rm(partPath(path), { force: true });
  await rm(factsPath(path), { force: true });
}

/** Worth trying again. */
class Transient extends Error {}

async function attempt(options: FetchFileOptions, retry: RetryPolicy): Promise<string> {
  const { url, path, signal } = options;
  let start = await partBytes(path);
  const facts = start > 0 ? await readFacts(path, url) : null;
  if (!facts?.validator) start = 0;
  // Complete already, and only the end was interrupted.
  if (facts && facts.totalBytes !== null && start === facts.totalBytes)
    return conclude(options, await hashOf(path, start));

  const stalled = new AbortController();
  const response = await request(options, stalled, start, facts?.validator ?? null, retry);
  if (url.startsWith('https:') && !response.url.startsWith('https:')) {
    await response.body?.cancel();
    throw new StudioError('download-failed', `${url}: leads to ${response.url}, which is not encrypted.`);
  }
  if (response.status === 416 || (start > 0 && response.status === 206 && !continues(response, start, facts))) {
    await response.body?.cancel();
    await discardPart(path);
    throw new Transient('the file on the server has changed: starting again');
  }
  if (!response.ok || !response.body) {
    await response.body?.cancel();
    const text = `the server answered ${response.status}`;
    if (response.status === 408 || response.status === 429 || response.status >= 500) throw new Transient(text);
    throw new StudioError('download-failed', `${url}: ${text}.`);
  }
  if (response.status !== 206) start = 0;
  const totalBytes = announcedTotal(response, start);
  options.onProgress(start, totalBytes);
  await checkSpace(path, totalBytes === null ? null : totalBytes - start, options.keepFreeBytes);

  const hash = await hashOf(path, start);
  /** What fails here fails the download. */
  const local = <Result>(work: Promise<Result>): Promise<Result> =>
    work.catch((error: unknown) => {
      throw fileFailure(error, `Writing ${path}`);
    });
  const file = await local(openPart(path, start));
  let received = start;
  try {
    const facts: PartFacts = { url, validator: validatorOf(response), totalBytes };
    await local(writeFile(factsPath(path), JSON.stringify(facts)));
    const timer = new StallTimer(retry.stallMs, stalled);
    try {
      for await (const piece of response.body as unknown as AsyncIterable<Uint8Array>) {
        timer.alive();
        if (totalBytes !== null && received + piece.length > totalBytes) {
          throw new Wrong(`the server sent more than the ${totalBytes} bytes it announced`);
        }
        await local(writeAll(file, piece, received));
        hash.update(piece);
        received += piece.length;
        options.onProgress(received, totalBytes);
      }
    } finally {
      timer.stop();
    }
    await local(file.sync());
  } catch (error) {
    if (error instanceof Wrong) {
      await file.close();
      await discardPart(path);
      throw new Transient(error.message);
    }
    throw error instanceof StudioError ? error : transferFailure(error);
  } finally {
    await file.close().catch(() => {}); // closed above where the part was dropped
  }
  if (signal.aborted) throw new Transient('stopped');
  if (totalBytes !== null && received < totalBytes) {
    throw new Transient(`the connection ended after ${received} of ${totalBytes} bytes`);
  }
  return conclude(options, hash);
}

class Wrong extends Error {}

async function request(
  { url, signal, fetch: ask = fetch }: FetchFileOptions,
  stalled: AbortController,
  start: number,
  validator: string | null,
  retry: RetryPolicy,
): Promise<Response> {
  const timer = setTimeout(() => stalled.abort(new Error('no answer')), retry.stallMs);
  try {
    return await ask(url, {
      signal: AbortSignal.any([signal, stalled.signal]),
      redirect: 'follow',
      headers: {
        // Compressed transfer would make offsets and lengths mean something else.
        'accept-encoding': 'identity',
        ...(start > 0 && validator ? { range: `bytes=${start}-`, 'if-range': validator } : {}),
      },
    });
  } catch (error) {
    const cause = (error as { cause?: { message?: string } }).cause?.message;
    throw new Transient(cause ?? (error as Error).message);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether a partial answer is the rest of what is here. */
function continues(response: Response, start: number, facts: PartFacts | null): boolean {
  const [, from, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '') ?? [];
  if (Number(from) !== start) return false;
  if (facts?.totalBytes != null && total !== '*' && Number(total) !== facts.totalBytes) return false;
  const validator = validatorOf(response);
  return validator === null || facts?.validator == null || validator === facts.validator;
}

function announcedTotal(response: Response, start: number): number | null {
  const range = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
  if (range && response.status === 206) return Number(range[1]);
  const length = response.headers.get('content-length');
  return length !== null && /^\d+$/.test(length) ? start + Number(length) : null;
}

function validatorOf(response: Response): string | null {
  const etag = response.headers.get('etag');
  if (etag && !etag.startsWith('W/')) return etag;
  return response.headers.get('last-modified');
}

async function conclude(options: FetchFileOptions, hash: Hash): Promise<string> {
  const { path, url, sha256 } = options;
  const actual = hash.digest('hex');
  if (sha256 !== null && actual !== sha256.toLowerCase()) {
    await discardPart(path);
    throw new StudioError(
      'download-failed',
      `${url}: the file is not the expected one (SHA-256 ${actual}, expected ${sha256}). It was removed.`,
    );
  }
  try {
    await moveIntoPlace(partPath(path), path);
    await rm(factsPath(path), { force: true });
  } catch (error) {
    throw fileFailure(error, `Writing ${path}`);
  }
  return actual;
}

async function checkSpace(path: string, needed: number | null, keepFreeBytes: number): Promise<void> {
  const free = await freeBytes(dirname(path));
  if (free >= (needed ?? 0) + keepFreeBytes) return;
  throw new StudioError(
    'disk-full',
    `Not enough space for this download: ${Math.ceil((needed ?? 0) / 1e6)} MB are still to come, ${Math.floor(free / 1e6)} MB are free.`,
  );
}

async function openPart(path: string, start: number): Promise<FileHandle> {
  const file = await open(partPath(path), start > 0 ? 'r+' : 'w');
  if (start > 0) await file.truncate(start);
  return file;
}

/** Everything that happened on the way to the server is tried again. */
function transferFailure(error: unknown): Transient {
  const cause = (error as { cause?: { message?: string } }).cause?.message;
  return new Transient(cause ?? (error as Error).message);
}

async function hashOf(path: string, bytes: number): Promise<Hash> {
  const hash = createHash('sha256');
  if (bytes === 0) return hash;
  for await (const piece of createReadStream(partPath(path), { end: bytes - 1 })) hash.update(piece as Buffer);
  return hash;
}

async function partBytes(path: string): Promise<number> {
  return (await stat(partPath(path)).catch(() => undefined))?.size ?? 0;
}

async function readFacts(path: string, url: string): Promise<PartFacts | null> {
  try {
    const facts = JSON.parse(await readFile(factsPath(path), 'utf8')) as PartFacts;
    return facts.url === url ? facts : null;
  } catch {
    return null;
  }
}

/** Ends a transfer that has fallen silent. */
class StallTimer {
  readonly #timer: NodeJS.Timeout;

  constructor(stallMs: number, stalled: AbortController) {
    this.#timer = setTimeout(() => stalled.abort(new Error(`no data for ${Math.round(stallMs / 1000)} s`)), stallMs);
  }

  alive(): void {
    this.#timer.refresh();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });
}
