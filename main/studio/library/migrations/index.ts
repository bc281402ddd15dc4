/** All migrations in order. A file, once released, is never changed: what it got wrong, the next one mends. */
import { sql as library } from './0001-library.ts';
import { sql as search } from './0002-search.ts';
import { sql as timings } from './0003-timings.ts';

/** The migration at index i leads from schema version i to i + 1 (SQLite's user_version). */
export const migrations: readonly string[] = [library, search, timings];
