/**
 * Entry of the library's thread: holds the lock and the database, and answers calls of table methods one after another, so that
 * no query ever runs on the thread that serves people.
 */
import { mkdirSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { toErrorShape } from '../../../contract/errors.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { listBackups, restoreBackup, setDamagedAside } from './database.ts';
import { libraryPaths } from './folder.ts';
import { acquireLock, type Owner, writeOwner } from './lock.ts';
import { openTables } from './openLibrary.ts';
import { sqliteFailure } from './sqliteFailure.ts';

/** Beside the tables: what also works while the database cannot be opened. */
export interface LibraryControl {
  lock(): void;
  open(): void;
  close(): void;
  setOwner(owner: Owner): void;
  backups(): ReturnType<typeof listBackups>;
  /** Puts a backup in the database's place and opens it. */
  restore(name?: string): void;
  /** Sets the database aside and opens an empty one. */
  startAnew(): void;
}

export interface LibraryCall {
  id: number;
  table: string;
  method: string;
  args: unknown[];
}

export type LibraryAnswer = { id: number; value: unknown } | { id: number; error: ReturnType<typeof toErrorShape> };

const port = parentPort;
if (!port) throw new Error('this file is started by the library client');
const paths = libraryPaths((workerData as { folder: string }).folder);
let lock: ReturnType<typeof acquireLock> | undefined;
let opened: ReturnType<typeof openTables> | undefined;

const control: LibraryControl = {
  lock() {
    mkdirSync(paths.folder, { recursive: true });
    lock ??= acquireLock(paths);
  },
  open() {
    opened ??= openTables(paths);
  },
  close() {
    opened?.close();
    opened = undefined;
    lock?.release();
    lock = undefined;
  },
  setOwner: (owner) => writeOwner(paths, owner),
  backups: () => listBackups(paths),
  restore(name) {
    opened?.close();
    opened = undefined;
    restoreBackup(paths, name);
    opened = openTables(paths);
  },
  startAnew() {
    opened?.close();
    opened = undefined;
    setDamagedAside(paths);
    opened = openTables(paths, { anew: true });
  },
};

port.on('message', ({ id, table, method, args }: LibraryCall) => {
  let answer: LibraryAnswer;
  try {
    const tables: Record<string, object> = { ...opened?.tables, control };
    const owner = tables[table] as Record<string, (...args: unknown[]) => unknown> | undefined;
    const called = owner?.[method];
    if (!owner || !called) throw new Error(`the library has no ${table}.${method} (or is not open)`);
    answer = { id, value: called.apply(owner, args) };
  } catch (error) {
    answer = { id, error: toErrorShape(fileFailure(sqliteFailure(error), 'Writing the library')) };
  }
  port.postMessage(answer);
});
