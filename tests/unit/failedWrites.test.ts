/**
 * Every other place that writes files, each made to fail once with a full disk and with an I/O error: a clear error, nothing left
 * half-written, and the same request goes well afterwards. Where a render writes, see tests/integration/fullDisk.test.ts.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { fromErrorShape } from '../../contract/errors.ts';
import { saveWindowState } from '../../main/electron/windowState.ts';
import type { ClipFormat } from '../../main/studio/encode/formats.ts';
import { makeBackup, openDatabase, restoreBackup } from '../../main/studio/library/database.ts';
import { libraryPaths } from '../../main/studio/library/folder.ts';
import { acquireLock } from '../../main/studio/library/lock.ts';
import type { CatalogueSource } from '../../main/studio/models/catalogue.ts';
import { endStartedClis, runCli } from '../support/cli.ts';
import { type FailingCall, watchFiles } from '../support/failingFiles.ts';
import { makeRandomModel } from '../support/models.ts';
import { type NastyServer, startNastyServer } from '../support/nastyServer.ts';
import { until } from '../support/processes.ts';
import { type OpenedStudio, settings, StudioTests } from '../support/studio.ts';

const tests = new StudioTests();
const files = watchFiles(tests.root);
let server: NastyServer;
let opened: OpenedStudio;
let takeId: string;
const library = tests.folder();
const out = join(tests.root, 'out');
let folders = 0;

beforeAll(async () => {
  server = await startNastyServer();
  for (const name of ['dit', 'vae', 'textEncoder', 'tokenizer'])
    server.files.set(name, { content: Buffer.alloc(1_000_000, name), etag: '"one"', faults: [] });
  opened = await tests.open(library, { catalogue: [offer()], downloadRetry: { firstDelayMs: 1 } });
  const { id } = await opened.client.call('renders.create', { settings: settings() });
  takeId = (await opened.reaches(id, 'done')).takeId as string;
  // The work goes after the take is recorded.
  await until(() => readdirSync(join(library, 'work')).length === 0, 60_000);
  mkdirSync(out);
});
afterEach(() => {
  files.stop();
  endStartedClis();
});
afterAll(async () => {
  await server.close();
  await tests.end();
});

function offer(): CatalogueSource {
  return {
    id: 'offered',
    name: 'Offered',
    description: '',
    licence: 'MIT',
    licenceUrl: '',
    homepage: '',
    files: (['dit', 'vae', 'textEncoder', 'tokenizer'] as const).map((role) => {
      const name = role === 'tokenizer' ? 'spiece.model' : `${role}.safetensors`;
      return { role, name, url: server.url(role), approximateBytes: 1_000_000, sha256: null };
    }),
    limits: { sideMultiple: 16 },
    defaults: {},
  };
}

/** Everything in a folder but the database. */
function contents(folder: string): string[] {
  const all = readdirSync(folder, { recursive: true, withFileTypes: true });
  const paths = all
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)));
  return paths.filter((path) => !/^(library|lock)\.db(-\w+)?$/.test(path)).sort();
}

async function uploads(): Promise<void> {
  const { uploadId } = await opened.client.call('uploads.begin', { name: 'x', bytes: 4 });
  await opened.client.call('uploads.append', { uploadId, data: new Uint8Array(4) });
  await opened.client.call('uploads.abandon', { uploadId });
}

async function exports(format: ClipFormat, folder = out): Promise<void> {
  const { client } = opened;
  const { id } = await client.call('exports.start', { takeId, format, folder });
  const find = async () => (await client.call('exports.list')).items.find((one) => one.id === id);
  await until(async () => (await find())?.state !== 'running', 60_000);
  const error = (await find())?.error;
  if (error) throw fromErrorShape(error);
}

async function imports(source: string, how: 'reference' | 'copy'): Promise<void> {
  const { id } = await opened.client.call('models.import', { path: source, how });
  await opened.client.call('models.remove', { id });
}

function looseFiles(): string {
  const folder = join(tests.root, 'Loose Files');
  mkdirSync(folder, { recursive: true });
  for (const name of ['a.dit.safetensors', 'b.vae.safetensors', 'c.text.safetensors', 'spiece.model'])
    writeFileSync(join(folder, name), name);
  return folder;
}

async function downloads(): Promise<void> {
  const { client } = opened;
  const told = opened.eventsOf('models.download').length;
  await client.call('models.download', { catalogueId: 'offered' });
  const end = () =>
    opened
      .eventsOf('models.download')
      .slice(told)
      .findLast(({ state }) => state !== 'running');
  await until(() => end() !== undefined, 60_000);
  const error = end()?.error;
  if (error) throw fromErrorShape(error);
  await client.call('models.remove', { id: 'offered' });
}

interface Site extends Omit<FailingCall, 'code'> {
  place: string;
  ask(): Promise<void>;
}

const part = '\\.\\w+\\.part';
const answered: Site[] = [
  { place: "an upload's file", call: 'open', path: 'uploads/upl_\\w+', ask: uploads },
  { place: "an upload's bytes", call: 'write', path: 'uploads/upl_\\w+', ask: uploads },
  {
    place: 'a folder for exports',
    call: 'mkdir',
    path: 'new/\\d+',
    ask: () => exports('gif', join(out, `new/${++folders}`)),
  },
  { place: 'an exported GIF, begun', call: 'open', path: `\\.gif${part}`, ask: () => exports('gif') },
  { place: "an exported GIF's frames", call: 'writeFile', path: `\\.gif${part}`, after: 2, ask: () => exports('gif') },
  { place: 'an exported clip, made durable', call: 'sync', path: `\\.webm${part}`, ask: () => exports('webm-vp9') },
  { place: 'an exported clip, in its place', call: 'rename', path: '\\.webm', ask: () => exports('webm-vp9') },
  { place: 'exported pictures, begun', call: 'mkdir', path: part, ask: () => exports('png') },
  { place: 'the settings of exported pictures', call: 'writeFile', path: 'settings\\.json', ask: () => exports('png') },
  { place: 'an exported picture', call: 'writeFile', path: 'frame_0003\\.png', ask: () => exports('png') },
  { place: 'exported pictures, made durable', call: 'sync', path: 'frame_0003\\.png', ask: () => exports('png') },
  { place: 'exported pictures, in their place', call: 'rename', path: 'out/[^/]+', ask: () => exports('png') },
  ...(
    [
      ['begun', 'mkdir', `models/\\.[^/]+`],
      ['a file', 'copyFile', `\\.part/vae\\.safetensors`],
      ['its description', 'writeFile', 'model\\.json'],
      ['made durable', 'sync', 'vae\\.safetensors'],
      ['in its place', 'rename', 'models/[^/]+'],
      ['its folder made durable', 'sync', '/models'],
    ] as const
  ).map(([what, call, path]) => {
    const source = tests.model('mine', { id: 'mine' });
    const ask = () => imports(source, 'copy');
    return { place: `a copied model, ${what}`, call, path, ask };
  }),
  {
    place: "loose weights' folder",
    call: 'mkdir',
    path: 'models/loose-files',
    ask: () => imports(looseFiles(), 'reference'),
  },
  {
    place: "loose weights' description",
    call: 'writeFile',
    path: 'loose-files/model\\.json',
    ask: () => imports(looseFiles(), 'reference'),
  },
];

const fetched: Site[] = (
  [
    ['its folder', 'mkdir', 'downloads/offered'],
    ['that it is going', 'writeFile', 'offered/going'],
    ['a file, begun', 'open', 'vae\\.safetensors\\.part'],
    ['what the file is', 'writeFile', 'vae\\.safetensors\\.part\\.json'],
    ['the middle of a file', 'write', 'vae\\.safetensors\\.part', 1],
    ['a file, made durable', 'sync', 'vae\\.safetensors\\.part'],
    ['a file, in its place', 'rename', 'vae\\.safetensors'],
    ['its hashes', 'writeFile', 'hashes\\.json', 1],
    ['its description', 'writeFile', 'model\\.json'],
    ['the model, in its place', 'rename', 'models/offered'],
  ] as const
).map(([what, call, path, after = 0]) => ({ place: `a download, ${what}`, call, path, after, ask: downloads }));

const codes = ['ENOSPC', 'EIO'] as const;
const each = <Row>(rows: readonly Row[]) => rows.flatMap((row) => codes.map((code) => ({ ...row, code })));
const told = { ENOSPC: 'disk-full', EIO: 'io' };

describe('a request whose write fails', () => {
  test.each(each(answered))(
    '$place ($code): says so, leaves nothing, and goes well later',
    async ({ ask, ...failing }) => {
      const before = [contents(library), contents(out)];
      files.fail(failing);
      await expect(ask()).rejects.toMatchObject({ code: told[failing.code] });
      expect(files.stop()).not.toEqual([]);
      expect([contents(library), contents(out)]).toEqual(before);
      await ask();
    },
  );

  test.each(each(fetched))('$place ($code): says so, keeps what came, and goes on', async ({ ask, ...failing }) => {
    server.ranges.length = 0;
    files.fail(failing);
    await expect(ask()).rejects.toMatchObject({ code: told[failing.code] });
    expect(files.stop()).not.toEqual([]);
    const [stands] = (await opened.client.call('models.downloads')).items;
    expect([stands?.state, (stands?.missingBytes ?? 0) > 0]).toEqual(
      failing.code === 'ENOSPC' ? ['waiting-for-space', true] : ['failed', false],
    );
    await ask();
    // What had come is not asked for again: the first file at most once.
    expect(server.ranges.length).toBeLessThanOrEqual(5);
    expect(readdirSync(join(library, 'downloads'))).toEqual([]);
  });
});

describe('a library whose write fails', () => {
  const paths = () => libraryPaths(tests.folder());
  const sites: { place: string; call: FailingCall['call']; path: string; set(): () => void }[] = [
    ...(['writeFile', 'rename'] as const).map((call) => ({
      place: `its owner's address, ${call}`,
      call,
      path: call === 'rename' ? 'owner\\.json' : 'owner\\.json\\.\\w+\\.part',
      set: () => {
        const of = paths();
        mkdirSync(of.folder);
        return () => acquireLock(of).release();
      },
    })),
    {
      place: 'its folder',
      call: 'mkdir',
      path: 'library-\\d+',
      set: () => {
        const of = paths();
        return () => openDatabase(of).close();
      },
    },
    ...(
      [
        ['mkdir', 'backups'],
        ['rename', '\\.db'],
      ] as const
    ).map(([call, path]) => ({
      place: `a backup, ${call}`,
      call,
      path,
      set: () => {
        const of = paths();
        const db = openDatabase(of);
        return () => void makeBackup(db, of, 'test');
      },
    })),
    ...(['damaged-[^/]+', 'library\\.db'] as const).map((path) => ({
      place: `a restored backup, as ${path}`,
      call: 'rename' as const,
      path,
      set: () => {
        const of = paths();
        const db = openDatabase(of);
        makeBackup(db, of, 'test');
        db.close();
        return () => void restoreBackup(of);
      },
    })),
  ];
  test.each(each(sites))(
    '$place ($code): fails, leaves nothing half-written, and goes well later',
    ({ set, ...failing }) => {
      const act = set();
      files.fail(failing);
      expect(act).toThrow(failing.code);
      const [failed = ''] = files.stop();
      const folder = /^.*library-\d+/.exec(failed.slice(failed.indexOf(' ') + 1))?.[0] ?? '';
      if (existsSync(folder)) expect(contents(folder).filter((path) => path.endsWith('.part'))).toEqual([]);
      act();
    },
  );

  test.each(each(['takes', 'work', 'exports', 'models', 'downloads'].map((name) => ({ name }))))(
    'its $name folder ($code): does not open, says why, and opens later',
    async ({ name, code }) => {
      const folder = tests.folder();
      files.fail({ call: 'mkdir', path: `/${name}`, code });
      await expect(tests.open(folder)).rejects.toMatchObject({ code: told[code] });
      files.stop();
      await (await tests.open(folder)).close();
    },
  );
});

describe('a command whose write fails', () => {
  let model: string;
  beforeAll(() => (model = makeRandomModel(join(tests.root, 'tiny'), 'tiny')));
  const clip = join(out, 'clip.mp4');
  const render = () => ['render', 'a ball', '--model', model, '--size', '32x32', '--frames', '5', '--steps', '1'];
  const sites: { place: string; call: FailingCall['call']; path: string; args(): string[] }[] = [
    {
      place: "a clip's folder",
      call: 'mkdir',
      path: 'out/fresh',
      args: () => [...render(), '--out', join(out, 'fresh/clip.mp4')],
    },
    { place: "a job's folder", call: 'mkdir', path: 'clip\\.mp4\\.job', args: () => [...render(), '--out', clip] },
    { place: 'a job', call: 'writeFile', path: 'job\\.json', args: () => [...render(), '--out', clip] },
    {
      place: "a batch's folder",
      call: 'mkdir',
      path: 'out/batch',
      args: () => [...render().toSpliced(1, 1), '--batch', lines(), '--out-dir', join(out, 'batch')],
    },
    {
      place: "a batch's raw frames",
      call: 'writeFile',
      path: `\\.rgb${part}`,
      args: () => [...render().toSpliced(1, 1), '--batch', lines(), '--out-dir', out, '--raw'],
    },
    {
      place: 'a take, saved',
      call: 'copyFile',
      path: `saved\\.mp4${part}`,
      args: () => ['takes', 'save', takeId, join(out, 'saved.mp4'), '--library', library],
    },
  ];
  const lines = () => {
    const path = join(tests.root, 'batch.jsonl');
    writeFileSync(path, '{"id":"one","prompt":"a ball"}\n');
    return path;
  };
  test.each(each(sites))('$place ($code): ends with the reason and leaves nothing', async ({ args, ...failing }) => {
    if (args().includes('--library')) await opened.close();
    const before = contents(out);
    files.fail(failing);
    const result = await runCli([...args(), '--json']);
    expect(files.stop()).not.toEqual([]);
    expect(result.lines.at(-1)).toMatchObject({ event: 'error', code: told[failing.code] });
    expect(result.code).not.toBe(0);
    expect(contents(out)).toEqual(before);
  });
});

test.each(each(['writeFile', 'rename'].map((call) => ({ call: call as 'writeFile' | 'rename' }))))(
  "the window's place is kept as it was where $call fails ($code)",
  ({ call, code }) => {
    const path = join(tests.root, 'window.json');
    const state = { bounds: { x: 1, y: 2, width: 900, height: 700 }, maximized: false };
    saveWindowState(path, state);
    files.fail({ call, path: call === 'rename' ? 'window\\.json' : 'window\\.json\\.part', code });
    saveWindowState(path, { ...state, maximized: true });
    expect(files.stop()).toHaveLength(1);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual(state);
  },
);
