/** Installed models as they were recorded; whether their files are still there is looked up elsewhere. */
import { StudioError } from '../../../../contract/errors.ts';
import type { Db } from '../database.ts';
import { fromJson, toJson } from './json.ts';

export interface StoredModel {
  id: string;
  name: string;
  folder: string;
  origin: 'embedded' | 'reference' | 'copy' | 'download';
  licence: string | null;
  fingerprint: string;
  bytes: number;
  /** The card read at import: limits, defaults and policy, for showing a model whose files are away. */
  card: Record<string, unknown>;
  /** SHA-256 by file name, where known. */
  hashes: Record<string, string>;
  addedAt: number;
}

interface Row {
  id: string;
  name: string;
  folder: string;
  origin: StoredModel['origin'];
  licence: string | null;
  fingerprint: string;
  bytes: number;
  card: string;
  hashes: string;
  added_at: number;
}

export class ModelTable {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  list(): StoredModel[] {
    const rows = this.#db.prepare('SELECT * FROM models ORDER BY added_at, id').all() as Row[];
    return rows.map(({ added_at, card, hashes, ...row }) => ({
      ...row,
      card: fromJson(card),
      hashes: fromJson(hashes),
      addedAt: added_at,
    }));
  }

  /** Errors: not-found. */
  get(id: string): StoredModel {
    const model = this.list().find((candidate) => candidate.id === id);
    if (!model) throw new StudioError('not-found', `There is no model “${id}” here.`, { field: 'model' });
    return model;
  }

  put(model: StoredModel): void {
    this.#db
      .prepare(
        `INSERT OR REPLACE INTO models(id, name, folder, origin, licence, fingerprint, bytes, card, hashes, added_at)
         VALUES (@id, @name, @folder, @origin, @licence, @fingerprint, @bytes, @card, @hashes, @addedAt)`,
      )
      .run({ ...model, card: toJson(model.card), hashes: toJson(model.hashes) });
  }

  remove(id: string): void {
    this.#db.prepare('DELETE FROM models WHERE id = ?').run(id);
  }
}
