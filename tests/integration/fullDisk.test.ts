/**
 * A whole library on a disk that fills up, or that refuses writes, at each place where a render writes: the queue holds with a
 * reason, nothing is lost, and all goes on by itself when there is room. Needs root for a file system of its own.
 */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { EventName } from '../../contract/index.ts';
import type { CatalogueSource } from '../../main/studio/models/catalogue.ts';
import { type FailingCall, watchFiles } from '../support/failingFiles.ts';
import { makeRandomModel } from '../support/models.ts';
import { type NastyServer, startNastyServer } from '../support/nastyServer.ts';
import { until } from '../support/processes.ts';
import { type OpenedStudio, settings, StudioTests } from '../support/studio.ts';

const tests = new StudioTests();
const files = watchFiles(tests.root);
const disk = mkdtempSync(join(tmpdir(), 'vmoba-disk-'));
const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', disk]).status === 0;
const folder = join(disk, 'library');
const ballast = join(disk, 'ballast');
let opened: OpenedStudio;
let server: NastyServer;
let model: string;
let expected: Awaited<ReturnType<typeof factsOf>>;

const wanted = settings({ model: 'tiny', width: 64, height: 48, frames: 5, steps: 3 });

async function render(seed = '1') {
  const { id } = await opened.client.call('renders.create', { settings: { ...wanted, seed } });
  return id;
}

/** What must be the same however often a render was interrupted. */
async function factsOf(id: string) {
  const { takeId } = await opened.reaches(id, 'done');
  const take = await opened.client.call('takes.get', { id: takeId as string });
  const { steps, mappedSteps } = await opened.client.call('renders.statistics', { id });
  const { latentHash, framesHash, bitIdentical, fileExists } = take;
  return {
    ...{ latentHash, framesHash, bitIdentical, fileExists },
    poster: take.posterMediaId !== null,
    steps: steps.map(({ step }) => step),
    maps: mappedSteps.map(({ step }) => step),
  };
}

const open = () => tests.open(folder, { addon: undefined, embeddedModel: model, catalogue: [offer()] });

/** The model, to be downloaded from the server. */
function offer(): CatalogueSource {
  const { files, limits } = JSON.parse(readFileSync(join(model, 'model.json'), 'utf8')) as {
    files: Record<CatalogueSource['files'][number]['role'], string>;
    limits: CatalogueSource['limits'];
  };
  const sources = (Object.entries(files) as [keyof typeof files, string][]).map(([role, name]) => {
    const content = readFileSync(join(model, name));
    server.files.set(name, { content, etag: '"one"', faults: [] });
    return { role, name, url: server.url(name), approximateBytes: content.length, sha256: null };
  });
  const words = { description: '', licence: 'MIT', licenceUrl: '', homepage: '' };
  return { id: 'offered', name: 'Offered', ...words, files: sources, limits, defaults: {} };
}

/** Takes all room but `spare` bytes. */
function fill(spare = 0): void {
  const file = openSync(ballast, 'a');
  try {
    for (;;) {
      const { bavail, bsize } = statfsSync(disk);
      const left = bavail * bsize - spare;
      if (left <= 0) return;
      writeSync(file, Buffer.alloc(Math.min(left, 1 << 20)));
    }
  } catch {
    // Full to the last byte.
  } finally {
    closeSync(file);
  }
}

const makeRoom = () => rmSync(ballast, { force: true });
const status = () => opened.client.call('queue.status');
/** The queue waits, and what ran is put away. */
const holds = (wanted: string) => async () => {
  const stands = await until(async () => {
    const { mode, runningId } = await status();
    return mode === wanted && runningId === null;
  }, 20_000);
  expect(stands).toBe(true);
};
const held = holds('waiting-for-space');
const paused = holds('paused');

beforeAll(async () => {
  if (!mounted) return;
  model = makeRandomModel(join(tests.root, 'tiny'), 'tiny');
  server = await startNastyServer();
  opened = await open();
  await opened.client.call('settings.update', { checkpointSeconds: 0, minimumFreeBytes: 0 });
  expected = await factsOf(await render());
});
afterAll(async () => {
  if (mounted) {
    makeRoom();
    await tests.end();
    await server.close();
    spawnSync('umount', [disk]);
  }
  rmdirSync(disk);
});

/** What a test listens to, for as long as it runs. */
const listening: (() => void)[] = [];
afterEach(async () => {
  if (!mounted) return;
  for (const end of listening.splice(0)) end();
  files.stop();
  makeRoom();
  await until(async () => (await status()).mode !== 'waiting-for-space', 60_000);
  const open = await opened.client.call('renders.list', { states: ['queued', 'running', 'paused'] });
  if (open.items.length > 0) await opened.client.call('renders.remove', { ids: open.items.map(({ id }) => id) });
  await opened.client.call('settings.update', { minimumFreeBytes: 0 });
  await opened.client.call('queue.resume');
});

/** Does something once, at the first event of a kind (and what it tells). */
function once(name: EventName, matches: (payload: never) => boolean, act: () => void): void {
  const end = opened.studio.events.listen((told, payload) => {
    if (told !== name || !matches(payload as never)) return;
    end();
    act();
  });
  listening.push(end);
}

describe.skipIf(!mounted)('a full disk', () => {
  type Step = { step: { step: number } };
  type Progress = { progress: { phase: string } };
  const moments: [string, (act: () => void) => void][] = [
    ['before the first checkpoint', (act) => once('renders.text', () => true, act)],
    ['between two checkpoints', (act) => once('renders.step', ({ step }: Step) => step.step === 1, act)],
    ['as the clip is begun', (act) => once('renders.step', ({ step }: Step) => step.step === 2, act)],
    [
      'as the clip is completed',
      (act) => once('renders.progress', ({ progress }: Progress) => progress.phase === 'muxing', act),
    ],
    ['as the take is recorded', (act) => files.meet({ call: 'rename', path: '\\.maps' }, act)],
  ];

  test.each(moments)('%s: the queue waits and says why, and goes on when there is room', async (_, at) => {
    at(() => fill());
    const id = await render();
    await held();
    expect(await status()).toMatchObject({ mode: 'waiting-for-space', runningId: null, queued: 1 });
    expect((await status()).reason).toMatch(/disk is (nearly )?full.*[Ff]ree some space/);
    makeRoom();
    expect(await factsOf(id)).toEqual(expected);
    expect(await opened.client.call('renders.get', { id })).toMatchObject({ engineCrashes: 0, error: null });
    // The work goes after the take is recorded.
    expect(await until(() => !existsSync(join(folder, 'work', id)), 10_000)).toBe(true);
    expect(readdirSync(join(folder, 'takes')).filter((file) => file.endsWith('.part'))).toEqual([]);
  });

  test('below the room that must stay free, nothing is begun, and a running render pauses', async () => {
    await opened.client.call('settings.update', { minimumFreeBytes: 4 * 1024 * 1024 });
    once(
      'renders.step',
      ({ step }: Step) => step.step === 0,
      () => fill(2 * 1024 * 1024),
    );
    const id = await render();
    await held();
    expect(await opened.client.call('renders.get', { id })).toMatchObject({ state: 'queued', stepsDone: 1 });
    makeRoom();
    expect(await factsOf(id)).toEqual(expected);
    await opened.client.call('settings.update', { minimumFreeBytes: 0 });
  });

  test('from the start: the library says why it does not open; with room it does, and what waited is rendered', async () => {
    await opened.client.call('queue.pause');
    const id = await render();
    await opened.close();
    fill();
    await expect(open()).rejects.toMatchObject({ code: 'disk-full' });
    makeRoom();
    opened = await open();
    await opened.client.call('queue.resume');
    expect(await factsOf(id)).toEqual(expected);
  });

  test('in the middle of a download: it waits, says how much is missing, and goes on where it was when there is room', async () => {
    const { client } = opened;
    await client.call('queue.pause');
    server.ranges.length = 0;
    files.meet({ call: 'write', path: 'vae\\.safetensors\\.part' }, () => fill(200_000));
    await client.call('models.download', { catalogueId: 'offered' });
    const download = async () => (await client.call('models.downloads')).items[0];
    expect(await until(async () => (await download())?.state === 'waiting-for-space', 60_000)).toBe(true);
    const waiting = await download();
    const rest = (waiting?.totalBytes ?? 0) - (waiting?.receivedBytes ?? 0);
    expect(waiting).toMatchObject({ file: 'vae.safetensors', missingBytes: rest, error: { code: 'disk-full' } });
    makeRoom();
    await until(async () => (await download()) === undefined, 60_000);
    expect(await client.call('models.verify', { id: 'offered' })).toMatchObject({ ok: true });
    const onward = expect.stringMatching(/^bytes=[1-9]\d*-$/) as string;
    expect(server.ranges).toEqual([null, null, onward, null, null]);
    await client.call('models.remove', { id: 'offered' });
    await client.call('queue.resume');
  });

  test('for a whole download, though its first file would fit: nothing is begun', async () => {
    const { client } = opened;
    await client.call('queue.pause');
    fill(1_200_000);
    const { id } = await client.call('models.download', { catalogueId: 'offered' });
    const download = async () => (await client.call('models.downloads')).items[0];
    expect(await until(async () => (await download())?.state === 'waiting-for-space', 60_000)).toBe(true);
    expect(await download()).toMatchObject({ file: 'dit.safetensors', receivedBytes: 0 });
    // Only that it is to go on after a restart.
    expect(readdirSync(join(folder, 'downloads/offered'))).toEqual(['going']);
    await client.call('models.cancelDownload', { id });
    makeRoom();
    await client.call('queue.resume');
  });

  test('as a copied model is noted down: the copy goes too', async () => {
    const { client } = opened;
    await client.call('queue.pause');
    files.meet({ call: 'sync', path: '/models' }, () => fill());
    const path = makeRandomModel(join(tests.root, 'copied'), 'tiny');
    await expect(client.call('models.import', { path, how: 'copy' })).rejects.toMatchObject({ code: 'disk-full' });
    expect(readdirSync(join(folder, 'models'))).toEqual([]);
  });

  test('is an error of whatever else is asked, and nothing is left half-written', async () => {
    const [take] = (await opened.client.call('takes.list')).items;
    const { client } = opened;
    const other = makeRandomModel(join(tests.root, 'other'), 'tiny');
    await client.call('queue.pause');
    fill();
    const before = ['takes', 'exports', 'models', 'backups'].map((name) => readdirSync(join(folder, name)));
    const asked = [
      () => client.call('library.backup'),
      () => client.call('uploads.begin', { name: 'x', bytes: 1000 }),
      () => client.call('models.import', { path: other, how: 'copy' }),
    ];
    for (const ask of asked) await expect(ask()).rejects.toMatchObject({ code: 'disk-full' });
    const { id } = await client.call('exports.start', { takeId: take?.id ?? '', format: 'gif' });
    await until(
      async () => (await client.call('exports.list')).items.some((one) => one.id === id && one.state === 'failed'),
      60_000,
    );
    expect((await client.call('exports.list')).items.find((one) => one.id === id)).toMatchObject({
      error: { code: 'disk-full' },
    });
    const big = { client: { notes: 'x'.repeat(500_000) } };
    await expect(client.call('settings.update', big)).rejects.toMatchObject({ code: 'disk-full' });
    expect(['takes', 'exports', 'models', 'backups'].map((name) => readdirSync(join(folder, name)))).toEqual(before);
    makeRoom();
    expect(await client.call('library.check')).toEqual({ problems: [] });
    await client.call('settings.update', big);
    await client.call('queue.resume');
  });
});

/** Each place where a render writes by way of Node; the engine's, FFmpeg's and SQLite's own writing meets the disk above. */
const places: { place: string; call: FailingCall['call']; path: string; after?: number; format?: 'gif' }[] = [
  { place: 'the work folder', call: 'mkdir', path: 'work/rnd_\\w+' },
  { place: 'the journal', call: 'appendFile', path: 'journal\\.jsonl', after: 3 },
  { place: 'the maps of a step', call: 'appendFile', path: 'rnd_\\w+/maps', after: 1 },
  { place: 'a GIF, begun', call: 'open', path: '\\.gif\\.\\w+\\.part', format: 'gif' },
  { place: "a GIF's frames", call: 'writeFile', path: '\\.gif\\.\\w+\\.part', after: 2, format: 'gif' },
  { place: 'the clip, made durable', call: 'sync', path: '\\.mp4\\.\\w+\\.part' },
  { place: 'the clip, in its place', call: 'rename', path: '\\.mp4' },
  { place: 'the folder with the clip', call: 'sync', path: '/takes' },
  { place: 'the poster', call: 'writeFile', path: '\\.png\\.\\w+\\.part' },
  { place: 'the poster, made durable', call: 'sync', path: '\\.png\\.\\w+\\.part' },
  { place: 'the poster, in its place', call: 'rename', path: '\\.png' },
  { place: "the take's maps", call: 'copyFile', path: '\\.maps\\.\\w+\\.part' },
  { place: "the take's maps, made durable", call: 'sync', path: '\\.maps\\.\\w+\\.part' },
  { place: "the take's maps, in their place", call: 'rename', path: '\\.maps' },
];
const failures = places.flatMap((place) => (['ENOSPC', 'EIO'] as const).map((code) => ({ ...place, code })));

describe.skipIf(!mounted)('one write that fails', () => {
  test.each(failures)('$place ($code): nothing is lost, and the take is whole', async ({ format, ...failing }) => {
    fill(4 * 1024 * 1024);
    files.fail(failing);
    const output = format ? { format } : undefined;
    const { id } = await opened.client.call('renders.create', { settings: wanted, output });
    const full = failing.code === 'ENOSPC';
    await (full ? held() : paused());
    expect(files.stop()).not.toEqual([]);
    expect(await opened.client.call('renders.get', { id })).toMatchObject({ state: 'queued', error: null });
    expect((await status()).reason).toMatch(full ? /the disk is full; free some space/ : /EIO/);
    makeRoom();
    if (!full) await opened.client.call('queue.resume');
    expect(await factsOf(id)).toEqual(expected);
    expect(await opened.client.call('renders.get', { id })).toMatchObject({ engineCrashes: 0, error: null });
    expect(await until(() => !existsSync(join(folder, 'work', id)), 10_000)).toBe(true);
    expect(readdirSync(join(folder, 'takes')).filter((file) => file.endsWith('.part'))).toEqual([]);
  });
});

describe.skipIf(!mounted)('a place that cannot be written', () => {
  test('pauses the queue with the reason; the render goes on when asked to', async () => {
    const work = join(folder, 'work');
    const id = await render('2');
    await factsOf(id);
    once(
      'renders.step',
      ({ step }: { step: { step: number } }) => step.step === 0,
      () => {
        // Whatever the reason, an error of the system: here a file where the folder was.
        for (const name of readdirSync(work)) {
          rmSync(join(work, name), { recursive: true });
          writeFileSync(join(work, name), '');
        }
      },
    );
    const failing = await render();
    await paused();
    expect((await status()).reason).toMatch(/[Nn]ot a directory|ENOTDIR/);
    expect(await opened.client.call('renders.get', { id: failing })).toMatchObject({ state: 'queued' });
    for (const name of readdirSync(work)) rmSync(join(work, name));
    await opened.client.call('queue.resume');
    expect(await factsOf(failing)).toEqual(expected);
  });
});
