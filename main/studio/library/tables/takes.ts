/** Finished clips and the trash. */
import { StudioError } from '../../../../contract/errors.ts';
import type { RenderSettings } from '../../../../contract/renderSettings.ts';
import type { Speedup } from '../../../../contract/statistics.ts';
import type { Take } from '../../../../contract/takes.ts';
import { failpoint } from '../../failpoints.ts';
import type { Db } from '../database.ts';
import { takeIdOf } from '../ids.ts';
import { fromJson, type Page, readCursor, textQuery, toJson, writeCursor } from './json.ts';

type ClipFacts = Omit<Take['clip'], 'mediaId'>;

export interface NewTake {
  renderId: string;
  modelName: string;
  /** Relative to the library; the others may be missing. */
  file: string;
  poster: string | null;
  maps: string | null;
  clip: ClipFacts;
  latentHash: string;
  framesHash: string;
  bitIdentical: boolean;
  differenceReason: string | null;
  renderSeconds: number;
  peakBytes: number;
  meanDensity: number | null;
  speedup: Speedup;
  /** Compressed; see main/studio/statistics. */
  statistics: Uint8Array;
}

/** A clip found again by its file after a backup was restored. */
export interface FoundTake extends Omit<NewTake, 'statistics'> {
  projectId: string;
  settings: RenderSettings;
  createdAt: number;
}

export interface TakeQuery {
  query?: string;
  projectId?: string;
  modelId?: string;
  favourite?: boolean;
  kind?: 'final' | 'draft';
  trashed: boolean;
  order: 'newest' | 'oldest' | 'name';
  cursor: string | null;
  limit: number;
}

export interface TakeFiles {
  file: string;
  poster: string | null;
  maps: string | null;
}

type Row = Record<string, string | number | null>;

export class TakeTable {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Also from the trash. Errors: not-found. */
  get(id: string): Take {
    return toTake(this.#row(id));
  }

  files(id: string): TakeFiles {
    const row = this.#row(id);
    return { file: row['file'] as string, poster: row['poster'] as string | null, maps: row['maps'] as string | null };
  }

  /** The end of a render in one transaction: the take, its statistics, the render's state. */
  finish(take: NewTake): Take {
    return this.#db.transaction(() => {
      const render = this.#db.prepare('SELECT * FROM renders WHERE id = ?').get(take.renderId) as Row | undefined;
      if (!render) throw new StudioError('not-found', 'There is no such render.', { field: 'id' });
      const settings = fromJson<RenderSettings>(render['settings']);
      this.#insert(take, settings, render['project_id'] as string, render['kind'] as 'final' | 'draft', Date.now());
      this.#db
        .prepare('INSERT OR REPLACE INTO render_statistics(render_id, statistics) VALUES (?, ?)')
        .run(take.renderId, take.statistics);
      this.#db
        .prepare(`UPDATE renders SET state = 'done', error = NULL, ended_at = ?, steps_done = ? WHERE id = ?`)
        .run(Date.now(), settings.steps, take.renderId);
      // A clip that someone went on rendering is no rubbish.
      this.#db.prepare('UPDATE projects SET trashed_at = NULL WHERE id = ?').run(render['project_id']);
      return this.get(takeIdOf(take.renderId));
    })();
  }

  /** Adds a clip that the database does not know, with a render to belong to. */
  adopt(take: FoundTake): Take {
    return this.#db.transaction(() => {
      this.#db
        .prepare(
          `INSERT INTO renders(id, project_id, state, kind, settings, output, position, steps_done, created_at, started_at, ended_at)
           VALUES (?, ?, 'done', 'final', ?, ?, 0, ?, ?, ?, ?)
           ON CONFLICT (id) DO UPDATE SET state = 'done', error = NULL, steps_done = excluded.steps_done, ended_at = excluded.ended_at`,
        )
        .run(
          take.renderId,
          take.projectId,
          toJson(take.settings),
          toJson({ format: take.clip.format }),
          take.settings.steps,
          take.createdAt,
          take.createdAt,
          take.createdAt,
        );
      this.#insert(take, take.settings, take.projectId, 'final', take.createdAt);
      return this.get(takeIdOf(take.renderId));
    })();
  }

  #insert(
    take: Omit<NewTake, 'statistics'>,
    settings: RenderSettings,
    projectId: string,
    kind: 'final' | 'draft',
    createdAt: number,
  ): void {
    this.#db
      .prepare(
        `INSERT INTO takes(id, render_id, project_id, name, prompt, kind, settings, model_id, model_name, file, poster, maps, clip,
           latent_hash, frames_hash, bit_identical, difference_reason, render_seconds, peak_bytes, mean_density, speedup, created_at)
         VALUES (@id, @renderId, @projectId, @name, @prompt, @kind, @settings, @modelId, @modelName, @file, @poster, @maps, @clip,
           @latentHash, @framesHash, @bitIdentical, @differenceReason, @renderSeconds, @peakBytes, @meanDensity, @speedup, @createdAt)`,
      )
      .run({
        id: takeIdOf(take.renderId),
        renderId: take.renderId,
        projectId,
        name: settings.prompt.trim().slice(0, 200),
        prompt: settings.prompt,
        kind,
        settings: toJson(settings),
        modelId: settings.model,
        modelName: take.modelName,
        file: take.file,
        poster: take.poster,
        maps: take.maps,
        clip: toJson(take.clip),
        latentHash: take.latentHash,
        framesHash: take.framesHash,
        bitIdentical: take.bitIdentical ? 1 : 0,
        differenceReason: take.differenceReason,
        renderSeconds: take.renderSeconds,
        peakBytes: take.peakBytes,
        meanDensity: take.meanDensity,
        speedup: toJson(take.speedup),
        createdAt,
      });
  }

  list(query: TakeQuery): Page<Take> {
    const conditions = [query.trashed ? 't.trashed_at IS NOT NULL' : 't.trashed_at IS NULL'];
    const parameters: (string | number)[] = [];
    const add = (condition: string, ...values: (string | number)[]) => {
      conditions.push(condition);
      parameters.push(...values);
    };
    const words = textQuery(query.query);
    if (words !== null) add('t.row IN (SELECT rowid FROM takes_text WHERE takes_text MATCH ?)', words);
    if (query.projectId !== undefined) add('t.project_id = ?', query.projectId);
    if (query.modelId !== undefined) add('t.model_id = ?', query.modelId);
    if (query.favourite !== undefined) add('t.favourite = ?', query.favourite ? 1 : 0);
    if (query.kind !== undefined) add('t.kind = ?', query.kind);
    const where = conditions.join(' AND ');
    const { total } = this.#db.prepare(`SELECT count(*) AS total FROM takes t WHERE ${where}`).get(parameters) as {
      total: number;
    };
    const after = readCursor(query.cursor);
    const [column, sign, direction] = {
      newest: ['t.created_at', '<', 'DESC'],
      oldest: ['t.created_at', '>', 'ASC'],
      name: ['t.name', '>', 'ASC'],
    }[query.order] as [string, string, string];
    const page = after ? `AND (${column}, t.row) ${sign} (?, ?)` : '';
    const rows = this.#db
      .prepare(
        `SELECT t.* FROM takes t WHERE ${where} ${page} ORDER BY ${column} ${direction}, t.row ${direction} LIMIT ?`,
      )
      .all([...parameters, ...(after ?? []), query.limit + 1]) as Row[];
    const shown = rows.slice(0, query.limit);
    const last = shown.at(-1);
    const key = query.order === 'name' ? 'name' : 'created_at';
    return {
      items: shown.map(toTake),
      total,
      nextCursor:
        rows.length > query.limit && last ? writeCursor(last[key] as string | number, last['row'] as number) : null,
    };
  }

  update(id: string, changes: { name?: string; favourite?: boolean; projectId?: string }): Take {
    const row = this.#row(id);
    const name = changes.name === undefined ? row['name'] : changes.name.trim() || row['prompt'];
    const favourite = changes.favourite === undefined ? row['favourite'] : changes.favourite ? 1 : 0;
    this.#db
      .prepare('UPDATE takes SET name = ?, favourite = ?, project_id = ? WHERE id = ?')
      .run(name, favourite, changes.projectId ?? row['project_id'], id);
    return this.get(id);
  }

  trash(ids: string[]): Take[] {
    return this.#mark(ids, 'UPDATE takes SET trashed_at = @now WHERE id = @id AND trashed_at IS NULL');
  }

  /** A take whose project is in the trash brings the project back. */
  restore(ids: string[]): Take[] {
    return this.#db.transaction(() => {
      const restored = this.#mark(
        ids,
        'UPDATE takes SET trashed_at = NULL WHERE id = @id AND trashed_at IS NOT NULL AND @now > 0',
      );
      const project = this.#db.prepare('UPDATE projects SET trashed_at = NULL WHERE id = ?');
      for (const take of restored) project.run(take.projectId);
      return restored;
    })();
  }

  #mark(ids: string[], statement: string): Take[] {
    const mark = this.#db.prepare(statement);
    const now = Date.now();
    return this.#db
      .transaction(() => ids.filter((id) => mark.run(statement.includes('@now') ? { id, now } : { id }).changes > 0))()
      .map((id) => this.get(id));
  }

  /** For good. Files are noted for deletion in the same transaction. Errors: conflict outside the trash. */
  delete(ids: string[]): void {
    this.#db.transaction(() => {
      for (const id of ids) {
        const row = this.#row(id);
        if (row['trashed_at'] === null) {
          throw new StudioError('conflict', 'Only takes in the trash can be deleted for good.', { field: 'ids' });
        }
        this.#delete(row);
      }
    })();
    failpoint('deletions-committed');
  }

  /** Everything in the trash: takes, removed renders, and projects with their renders. */
  emptyTrash(): { ids: string[]; bytes: number } {
    return this.#db.transaction(() => {
      const rows = this.#db.prepare('SELECT * FROM takes WHERE trashed_at IS NOT NULL').all() as Row[];
      for (const row of rows) this.#delete(row);
      const removed = this.#db
        .prepare(
          `SELECT id FROM renders WHERE state <> 'running'
             AND (removed_at IS NOT NULL OR project_id IN (SELECT id FROM projects WHERE trashed_at IS NOT NULL))
             AND NOT EXISTS (SELECT 1 FROM takes t WHERE t.render_id = renders.id)`,
        )
        .all() as { id: string }[];
      for (const { id } of removed) this.#deleteRender(id);
      this.#db.exec(
        `DELETE FROM projects WHERE trashed_at IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM takes t WHERE t.project_id = projects.id)
           AND NOT EXISTS (SELECT 1 FROM renders r WHERE r.project_id = projects.id)`,
      );
      return {
        ids: rows.map((row) => row['id'] as string),
        bytes: rows.reduce((sum, row) => sum + fromJson<ClipFacts>(row['clip']).bytes, 0),
      };
    })();
  }

  #delete(row: Row): void {
    for (const name of ['file', 'poster', 'maps'] as const) this.#deleteFile(row[name] as string | null);
    this.#db.prepare('DELETE FROM takes WHERE id = ?').run(row['id']);
    this.#deleteRender(row['render_id'] as string);
  }

  #deleteRender(id: string): void {
    this.#deleteFile(`work/${id}`);
    this.#db.prepare(`DELETE FROM renders WHERE id = ? AND state <> 'running'`).run(id);
  }

  #deleteFile(path: string | null): void {
    if (path !== null) this.#db.prepare('INSERT OR IGNORE INTO file_deletions(path) VALUES (?)').run(path);
  }

  pendingDeletions(): string[] {
    return (this.#db.prepare('SELECT path FROM file_deletions').all() as { path: string }[]).map((row) => row.path);
  }

  forgetDeletions(paths: string[]): void {
    const forget = this.#db.prepare('DELETE FROM file_deletions WHERE path = ?');
    this.#db.transaction(() => paths.forEach((path) => forget.run(path)))();
  }

  /** Files of all takes, for comparing with the folder. */
  allFiles(): (TakeFiles & { id: string; exists: boolean })[] {
    const rows = this.#db.prepare('SELECT id, file, poster, maps, file_exists FROM takes').all() as Row[];
    return rows.map((row) => ({
      id: row['id'] as string,
      file: row['file'] as string,
      poster: row['poster'] as string | null,
      maps: row['maps'] as string | null,
      exists: row['file_exists'] === 1,
    }));
  }

  setFileExists(id: string, exists: boolean): void {
    this.#db.prepare('UPDATE takes SET file_exists = ? WHERE id = ?').run(exists ? 1 : 0, id);
  }

  #row(id: string): Row {
    const row = this.#db.prepare('SELECT * FROM takes WHERE id = ?').get(id) as Row | undefined;
    if (!row) throw new StudioError('not-found', 'There is no such take.', { field: 'id' });
    return row;
  }
}

function toTake(row: Row): Take {
  const id = row['id'] as string;
  return {
    id,
    renderId: row['render_id'] as string,
    projectId: row['project_id'] as string,
    name: row['name'] as string,
    favourite: row['favourite'] === 1,
    kind: row['kind'] as 'final' | 'draft',
    settings: fromJson<RenderSettings>(row['settings']),
    modelName: row['model_name'] as string,
    clip: { mediaId: `${id}.clip`, ...fromJson<ClipFacts>(row['clip']) },
    posterMediaId: row['poster'] === null ? null : `${id}.poster`,
    latentHash: row['latent_hash'] as string,
    framesHash: row['frames_hash'] as string,
    bitIdentical: row['bit_identical'] === 1,
    differenceReason: row['difference_reason'] as string | null,
    renderSeconds: row['render_seconds'] as number,
    peakBytes: row['peak_bytes'] as number,
    meanDensity: row['mean_density'] as number | null,
    speedup: fromJson<Speedup>(row['speedup']),
    fileExists: row['file_exists'] === 1,
    createdAt: row['created_at'] as number,
    trashedAt: row['trashed_at'] as number | null,
  };
}
