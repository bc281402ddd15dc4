/** The queue and its history. Waiting means queued or paused; open means waiting or running. */
import { type ErrorShape, StudioError } from '../../../../contract/errors.ts';
import type { Render, RenderState } from '../../../../contract/renders.ts';
import type { RenderOutput, RenderSettings } from '../../../../contract/renderSettings.ts';
import type { Db } from '../database.ts';
import { newId, takeIdOf } from '../ids.ts';
import { errorFrom, fromJson, type Page, readCursor, toJson, writeCursor } from './json.ts';

/** A render as the library knows it: progress is live and the runner's to tell. */
export type StoredRender = Omit<Render, 'progress'>;

export interface NewRender {
  projectId: string;
  kind: 'final' | 'draft';
  settings: RenderSettings;
  output: RenderOutput;
  warnings: string[];
  sweepId?: string;
  sourceTakeId?: string;
}

export interface RenderQuery {
  states?: RenderState[];
  projectId?: string;
  sweepId?: string;
  order: 'queue' | 'newest';
  cursor: string | null;
  limit: number;
}

export interface QueueCounts {
  queued: number;
  running: number;
  paused: number;
  failed: number;
  done: number;
}

type Row = Record<string, string | number | null>;

export class RenderTable {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  /** Also removed ones. Errors: not-found. */
  get(id: string): StoredRender {
    const row = this.#db.prepare(`${select} WHERE r.id = ?`).get(id) as Row | undefined;
    if (!row) throw new StudioError('not-found', 'There is no such render.', { field: 'id' });
    return toRender(row);
  }

  exists(id: string): boolean {
    return this.#db.prepare('SELECT 1 FROM renders WHERE id = ? AND removed_at IS NULL').get(id) !== undefined;
  }

  insert(renders: NewRender[], place: 'last' | 'next'): StoredRender[] {
    const now = Date.now();
    return this.#db.transaction(() => {
      const first = place === 'last' ? this.#lastPosition() + 1 : this.#firstPosition() - renders.length;
      const insert = this.#db.prepare(
        `INSERT INTO renders(id, project_id, state, kind, settings, output, position, sweep_id, source_take_id, warnings, created_at)
         VALUES (@id, @projectId, 'queued', @kind, @settings, @output, @position, @sweepId, @sourceTakeId, @warnings, @now)`,
      );
      const remember = this.#db.prepare(
        `INSERT INTO prompts(prompt, negative_prompt, uses, last_used_at) VALUES (?, ?, 1, ?)
         ON CONFLICT (prompt, negative_prompt) DO UPDATE SET uses = uses + 1, last_used_at = excluded.last_used_at`,
      );
      return renders.map((render, index) => {
        const id = newId('rnd', now);
        insert.run({
          id,
          now,
          projectId: render.projectId,
          kind: render.kind,
          settings: toJson(render.settings),
          output: toJson(render.output),
          position: first + index,
          sweepId: render.sweepId ?? null,
          sourceTakeId: render.sourceTakeId ?? null,
          warnings: toJson(render.warnings),
        });
        remember.run(render.settings.prompt, render.settings.negativePrompt, now);
        return this.get(id);
      });
    })();
  }

  list(query: RenderQuery): Page<StoredRender> {
    const conditions = ['r.removed_at IS NULL'];
    const parameters: (string | number)[] = [];
    if (query.states) {
      conditions.push(`r.state IN (${query.states.map(() => '?').join(', ')})`);
      parameters.push(...query.states);
    }
    if (query.projectId !== undefined) {
      conditions.push('r.project_id = ?');
      parameters.push(query.projectId);
    }
    if (query.sweepId !== undefined) {
      conditions.push('r.sweep_id = ?');
      parameters.push(query.sweepId);
    }
    const where = conditions.join(' AND ');
    const { total } = this.#db.prepare(`SELECT count(*) AS total FROM renders r WHERE ${where}`).get(parameters) as {
      total: number;
    };
    const after = readCursor(query.cursor);
    const [page, order] =
      query.order === 'queue'
        ? [after ? 'AND (r.position, r.id) > (?, ?)' : '', 'r.position, r.id']
        : [after ? 'AND r.id < ?' : '', 'r.id DESC'];
    const cursorParameters = after ? (query.order === 'queue' ? after : [after[1]]) : [];
    const rows = this.#db
      .prepare(`${select} WHERE ${where} ${page} ORDER BY ${order} LIMIT ?`)
      .all([...parameters, ...cursorParameters, query.limit + 1]) as Row[];
    const items = rows.slice(0, query.limit).map(toRender);
    const last = items.at(-1);
    return {
      items,
      total,
      nextCursor: rows.length > query.limit && last ? writeCursor(last.position, last.id) : null,
    };
  }

  counts(): QueueCounts {
    const rows = this.#db
      .prepare('SELECT state, count(*) AS count FROM renders WHERE removed_at IS NULL GROUP BY state')
      .all() as { state: RenderState; count: number }[];
    const of = (state: RenderState) => rows.find((row) => row.state === state)?.count ?? 0;
    return {
      queued: of('queued'),
      running: of('running'),
      paused: of('paused'),
      failed: of('failed'),
      done: of('done'),
    };
  }

  /** Settings of the first waiting ones, for estimating when the queue will be empty. */
  firstQueued(limit: number): RenderSettings[] {
    const rows = this.#db
      .prepare(`SELECT settings FROM renders WHERE state = 'queued' AND removed_at IS NULL ORDER BY position LIMIT ?`)
      .all(limit) as { settings: string }[];
    return rows.map((row) => fromJson<RenderSettings>(row.settings));
  }

  /** Marks the next queued render as running; null when none waits. */
  takeNext(): StoredRender | null {
    const row = this.#db
      .prepare(
        `UPDATE renders SET state = 'running', started_at = coalesce(started_at, ?), ended_at = NULL, error = NULL
         WHERE id = (SELECT id FROM renders WHERE state = 'queued' AND removed_at IS NULL ORDER BY position, id LIMIT 1)
         RETURNING id`,
      )
      .get(Date.now()) as { id: string } | undefined;
    return row ? this.get(row.id) : null;
  }

  /** The render that `takeNext` would give. */
  peekNext(): StoredRender | null {
    const row = this.#db
      .prepare(`${select} WHERE r.state = 'queued' AND r.removed_at IS NULL ORDER BY r.position, r.id LIMIT 1`)
      .get() as Row | undefined;
    return row ? toRender(row) : null;
  }

  /** Puts a running render back, before all others. */
  putBackFirst(id: string): StoredRender {
    this.#db
      .prepare(`UPDATE renders SET state = 'queued', position = ? WHERE id = ? AND state = 'running'`)
      .run(this.#firstPosition() - 1, id);
    return this.get(id);
  }

  /** At start: what ran when the studio ended goes on first. */
  requeueInterrupted(): string[] {
    const rows = this.#db.prepare(`SELECT id FROM renders WHERE state = 'running'`).all() as { id: string }[];
    for (const { id } of rows) this.putBackFirst(id);
    return rows.map((row) => row.id);
  }

  /** Moves between states. Errors: conflict when the render is in none of `from`. */
  changeState(id: string, from: RenderState[], to: RenderState, error: ErrorShape | null = null): StoredRender {
    const current = this.get(id);
    if (!from.includes(current.state)) throw wrongState(current, to);
    const ended = to === 'failed' || to === 'cancelled' || to === 'done' ? Date.now() : null;
    this.#db
      .prepare('UPDATE renders SET state = ?, error = ?, ended_at = ? WHERE id = ?')
      .run(to, error && toJson(error), ended, id);
    return this.get(id);
  }

  setStepsDone(id: string, steps: number): void {
    this.#db.prepare('UPDATE renders SET steps_done = ? WHERE id = ?').run(steps, id);
  }

  setWarnings(id: string, warnings: string[]): void {
    this.#db.prepare('UPDATE renders SET warnings = ? WHERE id = ?').run(toJson(warnings), id);
  }

  countEngineCrash(id: string): void {
    this.#db.prepare('UPDATE renders SET engine_crashes = engine_crashes + 1 WHERE id = ?').run(id);
  }

  /** Errors: conflict for running and finished ones. */
  edit(
    id: string,
    settings: RenderSettings,
    output: RenderOutput,
    warnings: string[],
    restarts: boolean,
  ): StoredRender {
    const current = this.get(id);
    if (current.state === 'running' || current.state === 'done') throw wrongState(current, 'edited');
    this.#db
      .prepare(
        `UPDATE renders SET settings = ?, output = ?, warnings = ?, steps_done = CASE WHEN ? THEN 0 ELSE steps_done END WHERE id = ?`,
      )
      .run(toJson(settings), toJson(output), toJson(warnings), restarts ? 1 : 0, id);
    return this.get(id);
  }

  /** Moves waiting renders, in their given order. Errors: conflict, not-found. */
  move(ids: string[], to: 'first' | 'last' | { before: string }): StoredRender[] {
    return this.#db.transaction(() => {
      const moved = [...new Set(ids)].map((id) => this.get(id));
      for (const render of moved) if (!isWaiting(render)) throw wrongState(render, 'moved');
      const positions = this.#room(
        moved.map((render) => render.id),
        to,
      );
      const update = this.#db.prepare('UPDATE renders SET position = ? WHERE id = ?');
      for (const [index, render] of moved.entries()) update.run(positions[index], render.id);
      return moved.map((render) => this.get(render.id));
    })();
  }

  /** Hides renders; they stay until the trash is emptied. Running ones must have been stopped. */
  remove(ids: string[]): string[] {
    const remove = this.#db.prepare(
      `UPDATE renders SET removed_at = ? WHERE id = ? AND removed_at IS NULL AND state <> 'running'`,
    );
    const now = Date.now();
    return this.#db.transaction(() => ids.filter((id) => remove.run(now, id).changes > 0))();
  }

  restore(ids: string[]): StoredRender[] {
    const restore = this.#db.prepare(
      `UPDATE renders SET removed_at = NULL, state = CASE state WHEN 'queued' THEN 'paused' ELSE state END
       WHERE id = ? AND removed_at IS NOT NULL`,
    );
    return this.#db
      .transaction(() => ids.filter((id) => restore.run(id).changes > 0))()
      .map((id) => this.get(id));
  }

  /** Ids whose work folders are still wanted: removed ones may be restored. */
  unfinished(): string[] {
    const rows = this.#db.prepare(`SELECT id FROM renders WHERE state <> 'done'`).all() as { id: string }[];
    return rows.map((row) => row.id);
  }

  waitingFor(modelId: string): number {
    const { count } = this.#db
      .prepare(
        `SELECT count(*) AS count FROM renders WHERE model_id = ? AND state IN ('queued', 'running', 'paused') AND removed_at IS NULL`,
      )
      .get(modelId) as { count: number };
    return count;
  }

  statistics(id: string): Uint8Array | null {
    const row = this.#db.prepare('SELECT statistics FROM render_statistics WHERE render_id = ?').get(id) as
      { statistics: Uint8Array } | undefined;
    return row?.statistics ?? null;
  }

  #firstPosition(): number {
    return this.#extreme('min') ?? 1;
  }

  #lastPosition(): number {
    return this.#extreme('max') ?? 0;
  }

  #extreme(which: 'min' | 'max'): number | null {
    const open = `SELECT ${which}(position) AS position FROM renders WHERE removed_at IS NULL AND state IN ('queued', 'running', 'paused')`;
    return (this.#db.prepare(open).get() as { position: number | null }).position;
  }

  /** Positions for `ids` before or after the others. Where numbers run out between two neighbours, all are numbered anew. */
  #room(ids: string[], to: 'first' | 'last' | { before: string }): number[] {
    const along = (first: number, step: number) => ids.map((_, index) => first + index * step);
    if (to === 'last') return along(this.#lastPosition() + 1, 1);
    if (to === 'first') return along(this.#firstPosition() - ids.length, 1);
    const target = this.get(to.before);
    if (!isWaiting(target) || ids.includes(target.id)) throw wrongState(target, 'a place to move to');
    const previous = () =>
      (
        this.#db
          .prepare(
            `SELECT max(position) AS position FROM renders WHERE removed_at IS NULL AND state IN ('queued', 'running', 'paused')
             AND position < (SELECT position FROM renders WHERE id = ?) AND id NOT IN (SELECT value FROM json_each(?))`,
          )
          .get(target.id, toJson(ids)) as { position: number | null }
      ).position;
    const before = previous();
    if (before === null) return along(target.position - ids.length, 1);
    const step = (target.position - before) / (ids.length + 1);
    if (step > 1e-6) return along(before + step, step);
    this.#db.exec(
      `UPDATE renders SET position = numbered.place FROM
         (SELECT id, row_number() OVER (ORDER BY position, id) AS place FROM renders WHERE removed_at IS NULL AND state IN ('queued', 'running', 'paused')) AS numbered
       WHERE renders.id = numbered.id`,
    );
    const place = this.get(target.id).position;
    const below = previous() ?? place - 1;
    return along(below + (place - below) / (ids.length + 1), (place - below) / (ids.length + 1));
  }
}

const isWaiting = (render: StoredRender) => render.state === 'queued' || render.state === 'paused';

export function wrongState(render: StoredRender, wanted: string): StudioError {
  const is = {
    queued: 'waiting',
    running: 'running',
    paused: 'paused',
    done: 'done',
    failed: 'failed',
    cancelled: 'cancelled',
  };
  return new StudioError('conflict', `This render is ${is[render.state]}: it cannot be ${wanted}.`, { field: 'id' });
}

const select = `SELECT r.*, (SELECT t.id FROM takes t WHERE t.render_id = r.id) AS take_id FROM renders r`;

function toRender(row: Row): StoredRender {
  return {
    id: row['id'] as string,
    projectId: row['project_id'] as string,
    state: row['state'] as RenderState,
    stepsDone: row['steps_done'] as number,
    kind: row['kind'] as 'final' | 'draft',
    settings: fromJson<RenderSettings>(row['settings']),
    output: fromJson<RenderOutput>(row['output']),
    position: row['position'] as number,
    sweepId: row['sweep_id'] as string | null,
    sourceTakeId: row['source_take_id'] as string | null,
    takeId: row['take_id'] === null ? null : takeIdOf(row['id'] as string),
    error: errorFrom(row['error']),
    engineCrashes: row['engine_crashes'] as number,
    warnings: fromJson<string[]>(row['warnings']),
    createdAt: row['created_at'] as number,
    startedAt: row['started_at'] as number | null,
    endedAt: row['ended_at'] as number | null,
  };
}
