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
  // From files.
  'disk-full',
  'not-found',
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
