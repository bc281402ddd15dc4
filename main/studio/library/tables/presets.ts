/** Presets and the history of prompts. */
import { StudioError } from '../../../../contract/errors.ts';
import type { Preset } from '../../../../contract/presets.ts';
import type { Db } from '../database.ts';
import { newId } from '../ids.ts';
import { fromJson, textQuery, toJson } from './json.ts';

interface PresetRow {
  id: string;
  kind: Preset['kind'];
  name: string;
  value: string;
  created_at: number;
}

export interface UsedPrompt {
  prompt: string;
  negativePrompt: string;
  uses: number;
  lastUsedAt: number;
}

export class PresetTable {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  list(): Preset[] {
    const rows = this.#db.prepare('SELECT * FROM presets ORDER BY name, id').all() as PresetRow[];
    return rows.map(({ id, kind, name, value, created_at }) => ({
      id,
      kind,
      name,
      value: fromJson<Preset['value']>(value),
      createdAt: created_at,
    }));
  }

  save(preset: Pick<Preset, 'kind' | 'name' | 'value'>): Preset {
    const { id } = this.#db
      .prepare(
        `INSERT INTO presets(id, kind, name, value, created_at) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value RETURNING id`,
      )
      .get(newId('pre'), preset.kind, preset.name.trim(), toJson(preset.value), Date.now()) as { id: string };
    return this.list().find((saved) => saved.id === id) as Preset;
  }

  delete(id: string): void {
    const { changes } = this.#db.prepare('DELETE FROM presets WHERE id = ?').run(id);
    if (changes === 0) throw new StudioError('not-found', 'There is no such preset.', { field: 'id' });
  }

  prompts(query: string | undefined, limit: number): UsedPrompt[] {
    const words = textQuery(query);
    const matches = words === null ? '' : 'WHERE row IN (SELECT rowid FROM prompts_text WHERE prompts_text MATCH ?)';
    const rows = this.#db
      .prepare(`SELECT * FROM prompts ${matches} ORDER BY last_used_at DESC, row DESC LIMIT ?`)
      .all(...(words === null ? [] : [words]), limit) as {
      prompt: string;
      negative_prompt: string;
      uses: number;
      last_used_at: number;
    }[];
    return rows.map((row) => ({
      prompt: row.prompt,
      negativePrompt: row.negative_prompt,
      uses: row.uses,
      lastUsedAt: row.last_used_at,
    }));
  }
}
