import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { openSync, writeSync, closeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { renderSettings } from '../../contract/renderSettings.ts';
import { integrityCheck, openDatabase, schemaVersion } from '../../main/studio/library/database.ts';
import { libraryPaths } from '../../main/studio/library/folder.ts';
import { newId } from '../../main/studio/library/ids.ts';
import { migrations } from '../../main/studio/library/migrations/index.ts';
import { openTables } from '../../main/studio/library/openLibrary.ts';
import { fillLibrary } from '../support/library.ts';
import { settings, StudioTests } from '../support/studio.ts';

const root = mkdtempSync(join(tmpdir(), 'vmoba-library-'));
const tests = new StudioTests();
afterEach(() => tests.closeOwn());
afterAll(async () => {
  await tests.end();
  rmSync(root, { recursive: true, force: true });
});

let folders = 0;
const newPaths = () => libraryPaths(join(root, String(++folders)));
const chosen = renderSettings.parse(settings({ prompt: 'a red ball' }));

describe('migrations', () => {
  const current = migrations.length;

  test.each(migrations.map((_, index) => index + 1).filter((version) => version < current))(
    'lead from schema %i to the newest, with a backup before and everything kept',
    (version) => {
      const paths = newPaths();
      const old = openDatabase(paths, { upTo: version });
      expect(schemaVersion(old)).toBe(version);
      old.prepare('INSERT INTO projects(id, name, created_at) VALUES (?, ?, ?)').run('prj_1', 'Old', 1);
      const insert = old.prepare(
        `INSERT INTO renders(id, project_id, state, kind, settings, output, position, created_at)
         VALUES (?, 'prj_1', 'done', 'final', ?, '{"format":"mp4"}', 1, 5)`,
      );
      insert.run('rnd_1', JSON.stringify(chosen));
      old
        .prepare(
          `INSERT INTO takes(id, render_id, project_id, name, prompt, kind, settings, model_id, model_name, file, clip, latent_hash,
             frames_hash, bit_identical, render_seconds, peak_bytes, speedup, created_at)
           VALUES ('tak_1', 'rnd_1', 'prj_1', 'Old take', 'a red ball', 'final', ?, 'test', 'Test', 'takes/a.mp4', '{}', '', '', 1, 1, 1, '{}', 5)`,
        )
        .run(JSON.stringify(chosen));
      // From here on the studio of that time kept the history itself.
      if (version >= 2)
        old
          .prepare(`INSERT INTO prompts(prompt, negative_prompt, uses, last_used_at) VALUES ('a red ball', '', 1, 5)`)
          .run();
      old.close();

      const { tables, close } = openTables(paths);
      expect(tables.projects.list().map(({ name, takes }) => [name, takes])).toEqual([['Old', 1]]);
      const found = tables.takes.list({ query: 'ball', trashed: false, order: 'newest', cursor: null, limit: 5 });
      expect(found.items.map(({ name }) => name)).toEqual(['Old take']);
      expect(tables.presets.prompts('red', 5).map(({ prompt, uses }) => [prompt, uses])).toEqual([['a red ball', 1]]);
      expect(tables.upkeep.check()).toEqual([]);
      close();

      const backups = readdirSync(paths.backups);
      expect(backups).toEqual([expect.stringMatching(new RegExp(`before-migration-v${version}\\.db$`))]);
      const backup = new Database(join(paths.backups, backups[0] as string), { readonly: true });
      expect(schemaVersion(backup)).toBe(version);
      backup.close();
      const migrated = new Database(paths.database, { readonly: true });
      expect(schemaVersion(migrated)).toBe(current);
      migrated.close();
    },
  );

  test('every table is strict and the newest schema is sound', () => {
    const db = openDatabase(newPaths());
    const tables = db.pragma('table_list') as { name: string; type: string; strict: number; schema: string }[];
    const loose = tables.filter(({ name, type, strict }) => type === 'table' && !name.startsWith('sqlite_') && !strict);
    expect(loose).toEqual([]);
    expect(integrityCheck(db)).toEqual([]);
    db.close();
  });

  test('a newer schema is refused politely and left as it is', async () => {
    const folder = tests.folder();
    await (await tests.open(folder)).close();
    const path = join(folder, 'library.db');
    const db = new Database(path);
    db.pragma(`user_version = ${current + 1}`);
    db.close();
    const before = readFileSync(path);
    const opening = tests.open(folder);
    await expect(opening).rejects.toMatchObject({ code: 'library-newer' });
    await expect(opening).rejects.toThrow(/newer VMoBA Studio .* Update the studio, or choose another library folder/);
    expect(readFileSync(path).equals(before)).toBe(true);
    expect(existsSync(join(folder, 'owner.json'))).toBe(false);
  });

  test('a migration that cannot be backed up first is not begun', () => {
    const paths = newPaths();
    openDatabase(paths, { upTo: 1 }).close();
    writeFileSync(paths.backups, 'a file where the folder should be');
    expect(() => openDatabase(paths)).toThrow(/EEXIST|ENOTDIR/);
    rmSync(paths.backups);
    const db = new Database(paths.database, { readonly: true });
    expect(schemaVersion(db)).toBe(1);
    db.close();
  });
});

/** Overwrites pages in the middle of a file. */
function damage(path: string): void {
  const file = openSync(path, 'r+');
  const { size } = statSync(path);
  for (let at = 4096; at < size; at += 8192) writeSync(file, Buffer.alloc(2048, 0x5a), 0, 2048, at);
  closeSync(file);
}

describe('a damaged library', () => {
  const damages: [string, (path: string) => void][] = [
    ['with overwritten pages', damage],
    [
      'that is no database',
      (path) => writeFileSync(path, 'this is not a database, but a text of some length'.repeat(200)),
    ],
    ['that was cut off', (path) => truncateSync(path, Math.floor(statSync(path).size / 3))],
    ['that is empty', (path) => truncateSync(path, 0)],
    ['that is gone', (path) => rmSync(path)],
  ];

  /** With a preset and a take that the backup knows, and a take made after it. */
  let template: Promise<string> | undefined;
  async function makeTemplate(): Promise<string> {
    const folder = tests.folder();
    const opened = await tests.open(folder);
    const { client } = opened;
    const render = async (prompt: string) =>
      opened.reaches((await client.call('renders.create', { settings: settings({ prompt }) })).id, 'done');
    await client.call('presets.save', { name: 'mine', kind: 'negative-prompt', value: { negativePrompt: 'blur' } });
    await render('kept');
    await client.call('library.backup');
    await render('made after the backup');
    await opened.close();
    return folder;
  }

  test.each(damages)('%s opens only for its restoration, which brings all back', async (_, harm) => {
    const folder = tests.folder();
    cpSync(await (template ??= makeTemplate()), folder, { recursive: true });
    harm(join(folder, 'library.db'));

    const damaged = await tests.open(folder);
    const { client } = damaged;
    const status = await client.call('studio.status');
    expect(status.library).toMatchObject({ state: 'corrupt', problem: { code: 'library-corrupt' } });
    await expect(client.call('takes.list')).rejects.toMatchObject({ code: 'library-corrupt' });
    expect((await client.call('library.backups')).items.length).toBeGreaterThan(0);
    expect((await client.call('library.restore')).library).toMatchObject({ state: 'ok', problem: null });
    expect(damaged.eventsOf('library.changed')).toMatchObject([{ state: 'ok' }]);

    expect((await client.call('presets.list')).items).toMatchObject([{ name: 'mine' }]);
    const takes = (await client.call('takes.list', { order: 'oldest' })).items;
    expect(takes.map(({ name, settings }) => [name, settings.model])).toEqual([
      ['kept', 'test'],
      ['made after the backup', 'test'],
    ]);
    expect(await client.call('library.check')).toEqual({ problems: [] });
    expect(await damaged.studio.media(takes[1]?.posterMediaId ?? '')).not.toBeNull();
    await expect(client.call('library.restore')).rejects.toMatchObject({ code: 'conflict' });
  });

  test('without a sound backup begins anew and finds the clips again', async () => {
    const folder = tests.folder();
    cpSync(await (template ??= makeTemplate()), folder, { recursive: true });
    damage(join(folder, 'library.db'));
    for (const name of readdirSync(join(folder, 'backups')))
      writeFileSync(join(folder, 'backups', name), 'x'.repeat(60_000));

    const opened = await tests.open(folder);
    const { client } = opened;
    await expect(client.call('library.restore')).rejects.toMatchObject({ code: 'not-found' });
    await client.call('library.restore', { anew: true });
    const takes = (await client.call('takes.list')).items;
    expect(takes.map(({ name }) => name).sort()).toEqual(['kept', 'made after the backup']);
    expect((await client.call('studio.status')).notices).toEqual(['2 clips were found again by their files.']);
    const again = await client.call('renders.create', { settings: settings({ prompt: 'kept' }) });
    const { takeId } = await opened.reaches(again.id, 'done');
    const { latentHash } = await client.call('takes.get', { id: takeId as string });
    expect(latentHash).toBe(takes.find(({ name }) => name === 'kept')?.latentHash);
    expect(readdirSync(folder).some((name) => name.startsWith('damaged-'))).toBe(true);
  });

  test('found damaged while it is open stops everything and offers restoration', async () => {
    const folder = tests.folder();
    const paths = libraryPaths(folder);
    fillLibrary(paths, 20);
    const { tables, close } = openTables(paths);
    tables.upkeep.backup();
    close();
    loseIndexEntries(paths.database);

    // The quick check of every start does not compare indexes with tables.
    const opened = await tests.open(folder);
    const { client } = opened;
    const { problems } = await client.call('library.check');
    expect(problems).toContainEqual(expect.stringMatching(/missing from index renders_by_project/));
    expect(opened.eventsOf('library.changed')).toMatchObject([
      { state: 'corrupt', problem: { code: 'library-corrupt' } },
    ]);
    await expect(client.call('queue.status')).rejects.toMatchObject({ code: 'library-corrupt' });
    expect((await client.call('library.restore')).library.state).toBe('ok');
    expect(await client.call('library.check')).toEqual({ problems: [] });
    expect((await client.call('takes.list')).total).toBe(10);
  });
});

/** Adds a row while one of its table's indexes is hidden: the index then lacks it. */
function loseIndexEntries(path: string): void {
  const edit = (change: (db: Database.Database) => void) => {
    const db = new Database(path);
    db.unsafeMode();
    db.pragma('writable_schema = ON');
    change(db);
    db.close();
  };
  const name = 'renders_by_project';
  let index: { rootpage: number; sql: string } | undefined;
  edit((db) => {
    index = db.prepare('SELECT rootpage, sql FROM sqlite_schema WHERE name = ?').get(name) as typeof index;
    db.prepare('DELETE FROM sqlite_schema WHERE name = ?').run(name);
  });
  edit((db) => {
    db.prepare(`UPDATE renders SET state = 'failed' WHERE position = 2`).run();
    db.prepare(
      `INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql) VALUES ('index', ?, 'renders', ?, ?)`,
    ).run(name, index?.rootpage, index?.sql);
  });
}

describe('backups', () => {
  test('are made daily, kept to five, and a failing one keeps nobody out', async () => {
    const folder = tests.folder();
    await (await tests.open(folder)).close();
    const backups = join(folder, 'backups');
    expect(readdirSync(backups)).toHaveLength(1);
    const opened = await tests.open(folder);
    for (let count = 0; count < 6; count++) await opened.client.call('library.backup');
    expect((await opened.client.call('library.backups')).items).toHaveLength(5);
    await opened.close();
    rmSync(backups, { recursive: true });
    writeFileSync(backups, 'in the way');
    const { client } = await tests.open(folder);
    expect((await client.call('studio.status')).notices).toEqual([
      expect.stringMatching(/^The daily backup of the library could not be made\./),
    ]);
  });
});

describe('backups in a folder that was copied', () => {
  test('are as old as their names say: the newest is restored, and the daily one is due', async () => {
    const folder = tests.folder();
    const first = await tests.open(folder);
    await first.client.call('presets.save', {
      name: 'mine',
      kind: 'negative-prompt',
      value: { negativePrompt: 'blur' },
    });
    await first.client.call('library.backup');
    await first.close();
    const backups = join(folder, 'backups');
    const [daily = '', byHand = ''] = readdirSync(backups).sort();
    const now = Date.now() / 1000;
    utimesSync(join(backups, byHand), now - 7200, now - 7200);
    utimesSync(join(backups, daily), now - 3600, now - 3600);
    rmSync(join(folder, 'library.db'));
    const again = await tests.open(folder);
    const { client } = again;
    expect((await client.call('library.backups')).items.map(({ name }) => name)).toEqual([byHand, daily]);
    await client.call('library.restore');
    expect((await client.call('presets.list')).items).toMatchObject([{ name: 'mine' }]);
    await again.close();

    rmSync(join(backups, daily));
    const old = byHand.replace(/\d{4}-\d\d-\d\d/, '2026-01-02');
    renameSync(join(backups, byHand), join(backups, old));
    await tests.open(folder);
    expect(readdirSync(backups)).toHaveLength(2);
  });
});

describe('the trash', () => {
  test('keeps takes and their files until it is emptied', async () => {
    const opened = await tests.shared();
    const { client, studio } = opened;
    const { id } = await client.call('renders.create', { settings: settings({ prompt: 'rubbish' }) });
    const { takeId } = await opened.reaches(id, 'done');
    const ids = [takeId as string];
    const clip = (await studio.media(`${takeId ?? ''}.clip`)) as string;
    await expect(client.call('takes.delete', { ids })).rejects.toMatchObject({ code: 'conflict' });
    await client.call('takes.trash', { ids });
    expect((await client.call('takes.list', { query: 'rubbish' })).items).toEqual([]);
    expect((await client.call('takes.list', { trashed: true })).items).toHaveLength(1);
    expect(existsSync(clip)).toBe(true);
    await client.call('takes.restore', { ids });
    expect((await client.call('takes.list', { query: 'rubb' })).items).toHaveLength(1);
    await client.call('takes.trash', { ids });
    const emptied = await client.call('takes.emptyTrash');
    expect([emptied.takes, emptied.freedBytes > 0, existsSync(clip)]).toEqual([1, true, false]);
    await expect(client.call('takes.get', { id: ids[0] as string })).rejects.toMatchObject({ code: 'not-found' });
    await expect(client.call('renders.get', { id })).rejects.toMatchObject({ code: 'not-found' });
  });

  test('takes a project with its takes and open renders, and gives all back', async () => {
    const opened = await tests.shared();
    const { client } = opened;
    const project = await client.call('projects.create', { name: 'Short-lived' });
    const { id } = await client.call('renders.create', { settings: settings(), projectId: project.id });
    const { takeId } = await opened.reaches(id, 'done');
    await client.call('queue.pause');
    const open = await client.call('renders.create', { settings: settings(), projectId: project.id });
    await client.call('projects.trash', { id: project.id });
    expect(await client.call('renders.get', { id: open.id })).toMatchObject({ state: 'paused' });
    expect((await client.call('projects.list')).items.map(({ name }) => name)).toEqual(['My clips']);
    await expect(client.call('renders.create', { settings: settings(), projectId: project.id })).rejects.toMatchObject({
      code: 'conflict',
    });
    expect(await client.call('projects.restore', { id: project.id })).toMatchObject({ takes: 1, openRenders: 1 });
    await client.call('projects.trash', { id: project.id });
    await client.call('takes.emptyTrash');
    await expect(client.call('projects.rename', { id: project.id, name: 'x' })).rejects.toMatchObject({
      code: 'not-found',
    });
    await expect(client.call('renders.get', { id: open.id })).rejects.toMatchObject({ code: 'not-found' });
    await expect(client.call('takes.get', { id: takeId as string })).rejects.toMatchObject({ code: 'not-found' });
    const [last] = (await client.call('projects.list')).items;
    await expect(client.call('projects.trash', { id: last?.id ?? '' })).rejects.toMatchObject({ code: 'conflict' });
  });
});

describe('a start', () => {
  test('mends what an interruption left: files without rows, rows without files, half-written files', async () => {
    const folder = tests.folder();
    let opened = await tests.open(folder);
    const first = await opened.client.call('renders.create', { settings: settings({ prompt: 'stays' }) });
    const second = await opened.client.call('renders.create', { settings: settings({ prompt: 'vanishes' }) });
    await opened.reaches(first.id, 'done');
    const { takeId } = await opened.reaches(second.id, 'done');
    const lost = (await opened.studio.media(`${takeId ?? ''}.clip`)) as string;
    await opened.client.call('queue.pause');
    const waiting = await opened.client.call('renders.create', { settings: settings({ prompt: 'waits' }) });
    await opened.close();
    rmSync(lost);
    const takes = join(folder, 'takes');
    const stranger = `${waiting.id.slice(4)}`;
    for (const name of [
      '.x.mp4.0a1b2c3d.part',
      `waits-${stranger}.mp4`,
      `waits-${stranger}.png`,
      `gone-${newId('rnd').slice(4)}.maps`,
      'holiday.mp4',
    ])
      writeFileSync(join(takes, name), 'x');
    for (const name of [waiting.id, newId('rnd'), `${waiting.id}.01020304.part`])
      mkdirSync(join(folder, 'work', name), { recursive: true });
    mkdirSync(join(folder, 'uploads'));
    writeFileSync(join(folder, 'uploads', newId('upl')), 'x');

    opened = await tests.open(folder);
    expect((await opened.client.call('studio.status')).notices).toEqual(['1 clip is missing from the takes folder.']);
    expect(await opened.client.call('takes.get', { id: takeId as string })).toMatchObject({ fileExists: false });
    expect(readdirSync(join(folder, 'work'))).toEqual([waiting.id]);
    expect(existsSync(join(folder, 'uploads'))).toBe(false);
    const names = readdirSync(takes).filter((name) => !name.startsWith('stays-') && !name.startsWith('vanishes-'));
    // A file that somebody put there is not ours to judge.
    expect(names).toEqual(['holiday.mp4']);
  });
});

describe('lists', () => {
  const { tables, close } = (() => {
    const paths = newPaths();
    fillLibrary(paths, 300);
    return openTables(paths);
  })();
  afterAll(close);

  test('come page by page, each item once, in every order', () => {
    for (const order of ['newest', 'oldest', 'name'] as const) {
      const seen: string[] = [];
      let cursor: string | null = null;
      do {
        const page = tables.takes.list({ trashed: false, order, cursor, limit: 37 });
        seen.push(...page.items.map(({ id }) => id));
        cursor = page.nextCursor;
      } while (cursor !== null);
      expect([order, seen.length, new Set(seen).size]).toEqual([order, 150, 150]);
    }
    const renders: string[] = [];
    for (const order of ['queue', 'newest'] as const) {
      let cursor: string | null = null;
      do {
        const page = tables.renders.list({ order, cursor, limit: 64 });
        renders.push(...page.items.map(({ id }) => `${order} ${id}`));
        cursor = page.nextCursor;
      } while (cursor !== null);
    }
    expect([renders.length, new Set(renders).size]).toEqual([600, 600]);
  });

  test('are searched by words and beginnings, accents aside; nothing typed is an error', () => {
    const search = (query: string) =>
      tables.takes.list({ query, trashed: false, order: 'newest', cursor: null, limit: 200 }).total;
    expect([search('fox'), search('FÓX cau'), search('fox unheard-of'), search('')]).toEqual([75, 75, 0, 150]);
    for (const query of ['"', 'a OR', 'NEAR(', '*', "'; DROP TABLE takes; --", 'name:x', '^', '-', '\u0000', '🦊']) {
      expect(search(query)).toBeGreaterThanOrEqual(0);
    }
  });

  test('take a cursor that is none of ours as the first page', () => {
    const first = tables.takes.list({ trashed: false, order: 'name', cursor: null, limit: 5 });
    for (const cursor of ['', 'x', 'bnVsbA', Buffer.from('[1,{}]').toString('base64url')]) {
      expect(tables.takes.list({ trashed: false, order: 'name', cursor, limit: 5 }).items).toEqual(first.items);
    }
  });
});
