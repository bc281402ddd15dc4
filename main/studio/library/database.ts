/** Opens the library's database: checked, backed up, migrated. Runs in the library's worker thread. */
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import { StudioError } from '../../../contract/errors.ts';
import { failpoint } from '../failpoints.ts';
import type { LibraryPaths } from './folder.ts';
import { migrations } from './migrations/index.ts';

export type Db = Database.Database;

export interface Backup {
  name: string;
  createdAt: number;
  bytes: number;
}

const keptBackups = 5;
const backupEveryMs = 24 * 3600 * 1000;

export interface OpenOptions {
  /** Schema version to stop at (tests of migrations). */
  upTo?: number;
  /** Begin with an empty database although there are backups. */
  anew?: boolean;
}

/**
 * Errors: library-corrupt (the check found damage, it is no database, or it is empty although there are backups),
 * library-newer (written by a newer studio, left untouched), disk-full, io.
 */
export function openDatabase(paths: LibraryPaths, { upTo = migrations.length, anew = false }: OpenOptions = {}): Db {
  mkdirSync(paths.folder, { recursive: true });
  const db = new Database(paths.database);
  try {
    // Exclusive before the first access: the write-ahead log then needs no shared memory file.
    db.pragma('locking_mode = EXCLUSIVE');
    const version = schemaVersion(db);
    if (version > migrations.length) {
      throw new StudioError(
        'library-newer',
        `This library was written by a newer VMoBA Studio (schema ${version}; this one knows ${migrations.length}). Update the studio, or choose another library folder. Nothing was changed.`,
      );
    }
    if (version === 0 && !anew && listBackups(paths).length > 0) {
      throw new StudioError(
        'library-corrupt',
        "The library's database is missing or empty, although there are backups.",
      );
    }
    db.pragma('journal_mode = WAL');
    db.pragma('synchronous = FULL');
    db.pragma('foreign_keys = ON');
    db.pragma('temp_store = MEMORY');
    const problems = quickCheck(db);
    if (problems.length > 0) {
      throw new StudioError(
        'library-corrupt',
        `The library's database is damaged: ${problems.slice(0, 3).join('; ')}.`,
      );
    }
    if (version > 0 && version < upTo) makeBackup(db, paths, `before-migration-v${version}`);
    migrate(db, version, upTo);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

export function schemaVersion(db: Db): number {
  return db.pragma('user_version', { simple: true }) as number;
}

/** Empty: nothing is wrong. */
export function quickCheck(db: Db): string[] {
  const rows = db.pragma('quick_check(20)') as { quick_check: string }[];
  return rows.map((row) => row.quick_check).filter((text) => text !== 'ok');
}

/** Slower and deeper than quickCheck: indexes against tables, and foreign keys. */
export function integrityCheck(db: Db): string[] {
  const rows = db.pragma('integrity_check(20)') as { integrity_check: string }[];
  const broken = db.pragma('foreign_key_check') as { table: string; parent: string }[];
  return [
    ...rows.map((row) => row.integrity_check).filter((text) => text !== 'ok'),
    ...broken.map(({ table, parent }) => `a row of ${table} points to nothing in ${parent}`),
  ];
}

function migrate(db: Db, from: number, to: number): void {
  for (const [index, sql] of migrations.entries()) {
    if (index < from || index >= to) continue;
    // Schema changes are transactional in SQLite: a kill in here leaves the version before.
    db.transaction(() => {
      db.exec(sql);
      failpoint('migration-executed');
      db.pragma(`user_version = ${index + 1}`);
    })();
    failpoint('migration-committed');
  }
}

/** Complete or not at all; older ones beyond the kept number go. Errors: SQLITE_FULL and file errors. */
export function makeBackup(db: Db, paths: LibraryPaths, label: string): Backup {
  mkdirSync(paths.backups, { recursive: true });
  const stamp = new Date().toISOString().replace(/[:.]/g, '-');
  const name = `library-${stamp}-${label}.db`;
  const temporary = join(paths.backups, `.${name}.${randomBytes(4).toString('hex')}.part`);
  try {
    db.prepare('VACUUM INTO ?').run(temporary);
    syncFile(temporary);
    failpoint('backup-written');
    renameSync(temporary, join(paths.backups, name));
    syncFile(paths.backups);
  } finally {
    rmSync(temporary, { force: true });
  }
  for (const old of listBackups(paths).slice(keptBackups)) rmSync(join(paths.backups, old.name), { force: true });
  return backupFacts(paths, name);
}

/** Newest first. */
export function listBackups(paths: LibraryPaths): Backup[] {
  if (!existsSync(paths.backups)) return [];
  return readdirSync(paths.backups)
    .filter((name) => name.startsWith('library-') && name.endsWith('.db'))
    .map((name) => backupFacts(paths, name))
    .sort((a, b) => b.createdAt - a.createdAt || (a.name < b.name ? 1 : -1));
}

/** When it was made, says its name: a copied folder's files are as old as the copy. */
function backupFacts(paths: LibraryPaths, name: string): Backup {
  const { mtimeMs, size } = statSync(join(paths.backups, name));
  const [, day, hour, minute, second, ms] = /^library-([\d-]{10})T(\d\d)-(\d\d)-(\d\d)-(\d{3})Z-/.exec(name) ?? [];
  const named = Date.parse(`${day}T${hour}:${minute}:${second}.${ms}Z`);
  return { name, createdAt: Number.isNaN(named) ? Math.round(mtimeMs) : named, bytes: size };
}

/** The daily backup, where it is due. Errors: those of makeBackup. */
export function makeDueBackup(db: Db, paths: LibraryPaths): void {
  const newest = listBackups(paths)[0];
  if (newest && Date.now() - newest.createdAt <= backupEveryMs) return;
  makeBackup(db, paths, `v${schemaVersion(db)}`);
}

/**
 * Puts a backup in the damaged database's place; that one is kept beside it. The newest that passes its check when not named.
 * An end in the middle leaves either the old one or none, which counts as damaged. Errors: not-found when there is none.
 */
export function restoreBackup(paths: LibraryPaths, name?: string): Backup {
  const candidates = listBackups(paths).filter((backup) => name === undefined || backup.name === name);
  const chosen = candidates.find((backup) => isSound(join(paths.backups, backup.name)));
  if (!chosen) {
    throw new StudioError(
      'not-found',
      name === undefined ? 'There is no sound backup of this library.' : `There is no sound backup named ${name}.`,
      { field: 'name' },
    );
  }
  // A copy by SQLite itself, whole before it takes the name.
  const temporary = `${paths.database}.${randomBytes(4).toString('hex')}.part`;
  const source = new Database(join(paths.backups, chosen.name), { readonly: true });
  try {
    source.prepare('VACUUM INTO ?').run(temporary);
    syncFile(temporary);
    setDamagedAside(paths);
    renameSync(temporary, paths.database);
  } finally {
    source.close();
    rmSync(temporary, { force: true });
  }
  syncFile(dirname(paths.database));
  return chosen;
}

/** Keeps a damaged database under another name, its log with it, and leaves its place empty. */
export function setDamagedAside(paths: LibraryPaths): void {
  const stamp = new Date().toISOString().replace(/[:.]/g, '-');
  // The log first: no other database may ever meet it.
  for (const ending of ['-wal', '-journal', '']) {
    const path = paths.database + ending;
    if (existsSync(path)) renameSync(path, join(paths.folder, `damaged-${stamp}.db${ending}`));
  }
}

function isSound(path: string): boolean {
  let db: Db | undefined;
  try {
    db = new Database(path, { readonly: true });
    return quickCheck(db).length === 0 && schemaVersion(db) <= migrations.length;
  } catch {
    return false;
  } finally {
    db?.close();
  }
}

function syncFile(path: string): void {
  if (process.platform === 'win32') return; // folders cannot be opened there
  const file = openSync(path, 'r');
  try {
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}
