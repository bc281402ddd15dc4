/** Failures of FFmpeg's libraries, as errors that a person can act on. */
import { constants } from 'node:os';
import { FFmpegError } from 'node-av/lib';
import { StudioError } from '../../../contract/errors.ts';
import { diskFull } from '../files/fileFailure.ts';

/** Throws when an FFmpeg call failed. */
export function check(code: number, doing: string): void {
  if (code >= 0) return;
  if (code === -constants.errno.ENOSPC) throw diskFull(doing);
  throw new StudioError('io', `${doing}: ${FFmpegError.strerror(code)}`, { cause: new FFmpegError(code) });
}

/** Whether a call failed for what is in the file and not for the disk: FFmpeg's own codes are four letters, far from any errno. */
export function isContentFailure(error: unknown): boolean {
  const cause = (error as Error | undefined)?.cause;
  return cause instanceof FFmpegError && (cause.code === -constants.errno.EINVAL || cause.code < -0xffff);
}
