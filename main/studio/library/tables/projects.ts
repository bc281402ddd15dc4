/** Projects. */
import { StudioError } from '../../../../contract/errors.ts';
import type { Project } from '../../../../contract/projects.ts';
import type { Db } from '../database.ts';
import { newId } from '../ids.ts';

type Row = Record<string, string | number | null>;

export class ProjectTable {
  readonly #db: Db;

  constructor(db: Db) {
    this.#db = db;
  }

  list(): Project[] {
    const rows = this.#db.prepare(`${select} WHERE p.trashed_at IS NULL ORDER BY p.created_at, p.id`).all() as Row[];
    return rows.map(toProject);
  }

  /** Also from the trash. Errors: not-found. */
  get(id: string): Project {
    const row = this.#db.prepare(`${select} WHERE p.id = ?`).get(id) as Row | undefined;
    if (!row) throw new StudioError('not-found', 'There is no such project.', { field: 'projectId' });
    return toProject(row);
  }

  /** The named one, or the first; one is made where there is none. Errors: not-found, conflict for one in the trash. */
  chosen(id: string | undefined): Project {
    if (id === undefined) return this.list()[0] ?? this.create('My clips');
    const project = this.get(id);
    if (project.trashedAt !== null) {
      throw new StudioError('conflict', `The project “${project.name}” is in the trash: restore it first.`, {
        field: 'projectId',
      });
    }
    return project;
  }

  create(name: string): Project {
    const id = newId('prj');
    this.#db.prepare('INSERT INTO projects(id, name, created_at) VALUES (?, ?, ?)').run(id, name.trim(), Date.now());
    return this.get(id);
  }

  rename(id: string, name: string): Project {
    this.get(id);
    this.#db.prepare('UPDATE projects SET name = ? WHERE id = ?').run(name.trim(), id);
    return this.get(id);
  }

  /** Its takes go with it, its open renders pause; one time stamp marks what belongs together. Errors: conflict for the last one. */
  trash(id: string): { project: Project; pausedRenders: string[] } {
    const project = this.get(id);
    if (project.trashedAt === null && this.list().length === 1) {
      throw new StudioError('conflict', 'This is the only project: make another one first.', { field: 'id' });
    }
    const now = Date.now();
    return this.#db.transaction(() => {
      this.#db.prepare('UPDATE projects SET trashed_at = ? WHERE id = ? AND trashed_at IS NULL').run(now, id);
      this.#db.prepare('UPDATE takes SET trashed_at = ? WHERE project_id = ? AND trashed_at IS NULL').run(now, id);
      const paused = this.#db
        .prepare(
          `UPDATE renders SET state = 'paused' WHERE project_id = ? AND state = 'queued' AND removed_at IS NULL RETURNING id`,
        )
        .all(id) as { id: string }[];
      return { project: this.get(id), pausedRenders: paused.map((row) => row.id) };
    })();
  }

  restore(id: string): Project {
    const { trashedAt } = this.get(id);
    this.#db.transaction(() => {
      this.#db.prepare('UPDATE projects SET trashed_at = NULL WHERE id = ?').run(id);
      this.#db.prepare('UPDATE takes SET trashed_at = NULL WHERE project_id = ? AND trashed_at = ?').run(id, trashedAt);
    })();
    return this.get(id);
  }
}

const select = `
  SELECT p.*,
    (SELECT count(*) FROM takes t WHERE t.project_id = p.id AND t.trashed_at IS NULL) AS takes,
    (SELECT count(*) FROM renders r WHERE r.project_id = p.id AND r.state IN ('queued', 'running', 'paused') AND r.removed_at IS NULL) AS open_renders,
    (SELECT t.id FROM takes t WHERE t.project_id = p.id AND t.trashed_at IS NULL AND t.poster IS NOT NULL ORDER BY t.created_at DESC LIMIT 1) AS cover
  FROM projects p`;

function toProject(row: Row): Project {
  return {
    id: row['id'] as string,
    name: row['name'] as string,
    takes: row['takes'] as number,
    openRenders: row['open_renders'] as number,
    coverMediaId: row['cover'] === null ? null : `${row['cover']}.poster`,
    createdAt: row['created_at'] as number,
    trashedAt: row['trashed_at'] as number | null,
  };
}
