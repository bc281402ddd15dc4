/** Errors of child processes, made from what is known of their end. */
import { StudioError, type StudioErrorCode } from '../../contract/errors.ts';
import type { Failure } from './process/messages.ts';

export function studioError(
  code: string,
  message: string,
  options: { field?: string; cause?: unknown } = {},
): StudioError {
  return new StudioError(code as StudioErrorCode, message, options);
}

/** What the C library says of a full disk, in every system's words; native code has one code for all of `io`. */
const noSpace = /No space left on device|Disk quota exceeded/;

/** The error that a child reported, as it was; a full disk by its own name. */
export function fromFailure(failure: Failure): StudioError {
  const full = failure.code === 'io' && noSpace.test(failure.message);
  const message = full ? `${failure.message}: the disk is full; free some space and try again.` : failure.message;
  return studioError(
    full ? 'disk-full' : failure.code,
    message,
    failure.field === undefined ? {} : { field: failure.field },
  );
}
