/** The library as plain synchronous tables over one database. Lives in the worker thread; tests may use it directly. */
import type { Db } from './database.ts';
import { integrityCheck, makeBackup, makeDueBackup, openDatabase, type OpenOptions } from './database.ts';
import type { LibraryPaths } from './folder.ts';
import { ModelTable } from './tables/models.ts';
import { PresetTable } from './tables/presets.ts';
import { ProjectTable } from './tables/projects.ts';
import { RenderTable } from './tables/renders.ts';
import { SettingsTable } from './tables/settings.ts';
import { TakeTable } from './tables/takes.ts';
import { TimingTable } from './tables/timings.ts';

export class Upkeep {
  readonly #db: Db;
  readonly #paths: LibraryPaths;

  constructor(db: Db, paths: LibraryPaths) {
    this.#db = db;
    this.#paths = paths;
  }

  check(): string[] {
    return integrityCheck(this.#db);
  }

  backup() {
    return makeBackup(this.#db, this.#paths, 'by-hand');
  }

  /** The daily one. Errors: disk-full, io. */
  backupIfDue(): void {
    makeDueBackup(this.#db, this.#paths);
  }
}

export interface LibraryTables {
  renders: RenderTable;
  takes: TakeTable;
  projects: ProjectTable;
  presets: PresetTable;
  models: ModelTable;
  settings: SettingsTable;
  timings: TimingTable;
  upkeep: Upkeep;
}

/** Errors: see openDatabase. */
export function openTables(paths: LibraryPaths, options?: OpenOptions): { tables: LibraryTables; close(): void } {
  const db = openDatabase(paths, options);
  const tables = {
    renders: new RenderTable(db),
    takes: new TakeTable(db),
    projects: new ProjectTable(db),
    presets: new PresetTable(db),
    models: new ModelTable(db),
    settings: new SettingsTable(db),
    timings: new TimingTable(db),
    upkeep: new Upkeep(db, paths),
  };
  return {
    tables,
    close() {
      db.pragma('optimize');
      db.close();
    },
  };
}
