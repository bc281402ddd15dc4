/** How commands end, and how their errors look. */
import { StudioError, type StudioErrorCode } from '../../contract/errors.ts';

export const exitCodes = { ok: 0, failure: 1, badInput: 2, cancelled: 130 } as const;

export const exitCodeHelp = `
Exit codes:
  0    done
  1    failed: a check did not pass, the engine ended, the disk is full …
  2    bad input: options, request, model file, place to write
  130  cancelled`;

const badInputCodes: readonly StudioErrorCode[] = [
  'bad-request',
  'bad-model-file',
  'bad-clip-file',
  'not-found',
  'unsupported',
];

export function exitCodeOf(error: unknown): number {
  if (!(error instanceof StudioError)) return exitCodes.failure;
  if (error.code === 'cancelled') return exitCodes.cancelled;
  return badInputCodes.includes(error.code) || error.field !== undefined ? exitCodes.badInput : exitCodes.failure;
}

/** One line for a terminal, or one JSON line for a program. */
export function reportError(error: unknown, json: boolean): void {
  const known = error instanceof StudioError;
  if (json) {
    const { code, message, field } = known ? error : { code: 'internal', message: String(error), field: undefined };
    console.log(JSON.stringify({ event: 'error', code, message, field }));
  } else {
    console.error(
      `vmoba-studio: ${known ? error.message.replaceAll('\n', ' ') : ((error as Error)?.stack ?? String(error))}`,
    );
  }
}
