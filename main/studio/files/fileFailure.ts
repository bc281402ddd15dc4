/** Failures of reading and writing files, as errors that a person can act on. */
import { StudioError } from '../../../contract/errors.ts';

/** Turns a file system error into a StudioError; anything else stays what it is. */
export function fileFailure(error: unknown, doing: string): unknown {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  if (error instanceof StudioError || typeof code !== 'string') return error;
  if (code === 'ENOSPC' || code === 'EDQUOT') return diskFull(doing, error);
  return new StudioError('io', `${doing}: ${(error as Error).message}`, { cause: error });
}

export function diskFull(doing: string, cause?: unknown): StudioError {
  return new StudioError('disk-full', `${doing}: the disk is full; free some space and try again.`, { cause });
}
