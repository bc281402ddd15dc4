/** What SQLite reports, as errors that a person can act on. */
import { StudioError } from '../../../contract/errors.ts';

export function sqliteFailure(error: unknown): unknown {
  const code = (error as { code?: unknown } | undefined)?.code;
  if (error instanceof StudioError || typeof code !== 'string' || !code.startsWith('SQLITE_')) return error;
  const message = (error as Error).message;
  if (code === 'SQLITE_FULL') {
    return new StudioError(
      'disk-full',
      'The library cannot be written: the disk is full; free some space and try again.',
      {
        cause: error,
      },
    );
  }
  if (code.startsWith('SQLITE_CORRUPT') || code === 'SQLITE_NOTADB') {
    return new StudioError('library-corrupt', `The library's database is damaged: ${message}.`, { cause: error });
  }
  if (code.startsWith('SQLITE_IOERR') || code.startsWith('SQLITE_CANTOPEN') || code.startsWith('SQLITE_READONLY')) {
    return new StudioError('io', `The library cannot be read or written: ${message} (${code}).`, { cause: error });
  }
  return new StudioError('internal', `The library failed: ${message} (${code}).`, { cause: error });
}
