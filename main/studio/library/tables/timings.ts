/** Timings of finished renders on this machine, and dense steps timed for comparison. */
import type { TimingSample } from '../../estimates/timings.ts';
import type { Db } from '../database.ts';
import { fromJson, toJson } from './json.ts';

export interface StoredTiming {
  model: string;
  tokens: number;
  source: 'render' | 'calibration';
  sample: TimingSample;
}

/** Old timings say little of today's drivers and builds. */
const keptPerMachine = 400;

export class TimingTable {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Newest first; those of the model before others. */
  list(machine: string, model: string, limit: number): StoredTiming[] {
    const rows = this.#db
      .prepare('SELECT * FROM timings WHERE machine = ? ORDER BY model = ? DESC, at DESC, row DESC LIMIT ?')
      .all(machine, model, limit) as {
      model: string;
      tokens: number;
      source: 'render' | 'calibration';
      sample: string;
    }[];
    return rows.map(({ sample, ...row }) => ({ ...row, sample: fromJson<TimingSample>(sample) }));
  }

  add(machine: string, timing: StoredTiming): void {
    this.#db
      .prepare('INSERT INTO timings(at, model, machine, tokens, source, sample) VALUES (?, ?, ?, ?, ?, ?)')
      .run(Date.now(), timing.model, machine, timing.tokens, timing.source, toJson(timing.sample));
    this.#db
      .prepare(
        `DELETE FROM timings WHERE machine = ? AND row NOT IN (SELECT row FROM timings WHERE machine = ? ORDER BY at DESC, row DESC LIMIT ?)`,
      )
      .run(machine, machine, keptPerMachine);
  }

  denseStepSeconds(key: string): number | null {
    const row = this.#db.prepare('SELECT seconds FROM dense_steps WHERE key = ?').get(key) as
      { seconds: number } | undefined;
    return row?.seconds ?? null;
  }

  setDenseStepSeconds(key: string, seconds: number): void {
    this.#db
      .prepare('INSERT OR REPLACE INTO dense_steps(key, seconds, at) VALUES (?, ?, ?)')
      .run(key, seconds, Date.now());
  }
}
