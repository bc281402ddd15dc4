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

/** The error that a child reported, as it was. */
export function fromFailure(failure: Failure): StudioError {
  return studioError(failure.code, failure.message, failure.field === undefined ? {} : { field: failure.field });
}
