/** The studio's settings, one row per member, and what the queue was told to do. */
import { StudioError } from '../../../../contract/errors.ts';
import { type StudioSettings, studioSettings } from '../../../../contract/settings.ts';
import type { Db } from '../database.ts';
import { fromJson, toJson } from './json.ts';

export type QueueIntent = 'running' | 'paused';

/** Not a setting: whether the queue was paused by request. */
const queueIntentName = '.queue';

/** Characters of JSON. */
const largestMember = 1024 * 1024;

export class SettingsTable {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** A member that is no longer valid falls back to its default. */
  get(): StudioSettings {
    const rows = this.#db.prepare('SELECT name, value FROM settings').all() as { name: string; value: string }[];
    const stored = Object.fromEntries(rows.map((row) => [row.name, fromJson<unknown>(row.value)]));
    const parsed = studioSettings.safeParse(stored);
    if (parsed.success) return parsed.data;
    const bad = new Set(parsed.error.issues.map((issue) => String(issue.path[0])));
    return studioSettings.parse(Object.fromEntries(Object.entries(stored).filter(([name]) => !bad.has(name))));
  }

  /** Errors: too-large for what clients keep here. */
  update(changes: Partial<StudioSettings>): StudioSettings {
    const current = this.get();
    const members = Object.entries(changes).filter(([, value]) => value !== undefined);
    this.#db.transaction(() => {
      for (const [name, value] of members) {
        if (name === 'shortcuts') this.#set(name, { ...current.shortcuts, ...(value as object) });
        else if (name === 'client') {
          const merged = Object.entries({ ...current.client, ...(value as Record<string, unknown>) });
          this.#set(name, Object.fromEntries(merged.filter(([, item]) => item !== null)));
        } else this.#set(name, value);
      }
    })();
    return this.get();
  }

  queueIntent(): QueueIntent {
    const row = this.#db.prepare('SELECT value FROM settings WHERE name = ?').get(queueIntentName) as
      { value: string } | undefined;
    return row && fromJson(row.value) === 'paused' ? 'paused' : 'running';
  }

  setQueueIntent(intent: QueueIntent): void {
    this.#set(queueIntentName, intent);
  }

  #set(name: string, value: unknown): void {
    const json = toJson(value);
    if (json.length > largestMember) {
      throw new StudioError('too-large', `${name} would grow beyond ${largestMember} characters: keep less in it.`, {
        field: name,
      });
    }
    this.#db.prepare('INSERT OR REPLACE INTO settings(name, value) VALUES (?, ?)').run(name, json);
  }
}
