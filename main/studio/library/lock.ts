/**
 * One owner per library. The lock is SQLite's exclusive lock on a small file of its own: the system releases it when the owner
 * dies, however it dies. Beside it the owner says where it can be reached.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import Database from 'better-sqlite3';
import { StudioError } from '../../../contract/errors.ts';
import type { LibraryPaths } from './folder.ts';

export interface Owner {
  pid: number;
  /** Where clients connect, token included; null for an owner that serves nobody. */
  url: string | null;
}

/** Errors: library-locked, and those of the file system. */
export function acquireLock(paths: LibraryPaths): { release(): void } {
  const database = new Database(paths.lock, { timeout: 0 });
  try {
    database.pragma('journal_mode = MEMORY');
    database.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    database.close();
    if (!String((error as { code?: string }).code).startsWith('SQLITE_BUSY')) throw error;
    const owner = readOwner(paths);
    const where = owner
      ? ` (process ${owner.pid}${owner.url ? `, reachable at ${new URL(owner.url).origin}` : ''})`
      : '';
    throw new StudioError('library-locked', `${paths.folder} is open in another VMoBA Studio${where}.`, {
      cause: error,
    });
  }
  const release = () => {
    rmSync(paths.owner, { force: true });
    database.close();
  };
  try {
    writeOwner(paths, { pid: process.pid, url: null });
  } catch (error) {
    release();
    throw error;
  }
  return { release };
}

/** Only the person who runs the studio may read the token in it. */
export function writeOwner(paths: LibraryPaths, owner: Owner): void {
  const temporary = `${paths.owner}.${randomBytes(4).toString('hex')}.part`;
  try {
    writeFileSync(temporary, JSON.stringify(owner), { mode: 0o600 });
    renameSync(temporary, paths.owner);
  } finally {
    rmSync(temporary, { force: true });
  }
}

/** Who holds the library, as far as it said; null where nobody did. */
export function readOwner(paths: LibraryPaths): Owner | null {
  try {
    const { pid, url } = JSON.parse(readFileSync(paths.owner, 'utf8')) as Record<string, unknown>;
    if (typeof pid !== 'number') return null;
    return { pid, url: typeof url === 'string' && URL.canParse(url) ? url : null };
  } catch {
    return null;
  }
}
