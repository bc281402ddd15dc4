/**
 * The one family of errors that crosses the studio's borders: a stable code for programs, a sentence that a person can act on,
 * and the request field it is about. The native engine's codes are among them.
 */

export const studioErrorCodes = [
  // From the native engine.
  'bad-request',
  'bad-model-file',
  'cancelled',
  'out-of-memory',
  'io',
  'unsupported',
  'numerical-fault',
  'device-lost',
  'internal',
  // From the supervision of child processes.
  'engine-unavailable',
  'engine-crashed',
  'engine-hung',
  'engine-stopped',
  'encoder-crashed',
  'encoder-hung',
  'encoder-stopped',
  // From files and downloads.
  /** The file is none of the kinds of clip that can be read, or damaged. */
  'bad-clip-file',
  'disk-full',
  'not-found',
  'download-failed',
  // From the library.
  /** The library was written by a newer studio. */
  'library-newer',
  'library-corrupt',
  /** Another process owns the library. */
  'library-locked',
  // From the studio's own rules.
  /** The thing is not in a state that allows this. */
  'conflict',
  'closing',
  // From a client's connection.
  'unauthorized',
  'too-large',
  'rate-limited',
  'disconnected',
] as const;

export type StudioErrorCode = (typeof studioErrorCodes)[number];

export interface StudioErrorOptions {
  /** The request field the error is about, as a dotted path. */
  field?: string;
  cause?: unknown;
}

export class StudioError extends Error {
  override readonly name = 'StudioError';
  readonly code: StudioErrorCode;
  readonly field: string | undefined;

  constructor(code: StudioErrorCode, message: string, options: StudioErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.field = options.field;
  }
}

/** An error as it crosses a border. */
export interface ErrorShape {
  code: StudioErrorCode;
  message: string;
  field?: string;
}

/** What a client is told: StudioErrors as they are, anything else as `internal` without its stack. */
export function toErrorShape(error: unknown): ErrorShape {
  if (error instanceof StudioError) {
    const { code, message, field } = error;
    return { code, message, ...(field === undefined ? {} : { field }) };
  }
  return { code: 'internal', message: error instanceof Error ? error.message : String(error) };
}

export function fromErrorShape({ code, message, field }: ErrorShape): StudioError {
  return new StudioError(code, message, field === undefined ? {} : { field });
}
