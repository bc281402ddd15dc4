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
import { makeRandomModel } from '../support/models.ts';
import { until } from '../support/processes.ts';
import { type OpenedStudio, settings, StudioTests } from '../support/studio.ts';

const tests = new StudioTests();
const disk = mkdtempSync(join(tmpdir(), 'vmoba-disk-'));
const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', disk]).status === 0;
const folder = join(disk, 'library');
const ballast = join(disk, 'ballast');
let opened: OpenedStudio;
let expected: string;

const wanted = settings({ model: 'tiny', width: 64, height: 48, frames: 5, steps: 3 });

async function render(seed = '1') {
  const { id } = await opened.client.call('renders.create', { settings: { ...wanted, seed } });
  return id;
}

async function hashOf(id: string): Promise<string> {
  const { takeId } = await opened.reaches(id, 'done');
  return (await opened.client.call('takes.get', { id: takeId as string })).latentHash;
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
/** The queue waits for space, and what ran is put away. */
const held = () =>
  until(async () => {
    const { mode, runningId } = await status();
    return mode === 'waiting-for-space' && runningId === null;
  }, 60_000);

beforeAll(async () => {
  if (!mounted) return;
  const model = makeRandomModel(join(tests.root, 'tiny'), 'tiny');
  opened = await tests.open(folder, { addon: undefined, embeddedModel: model });
  await opened.client.call('settings.update', { checkpointSeconds: 0, minimumFreeBytes: 0 });
  expected = await hashOf(await render());
});
afterAll(async () => {
  if (mounted) {
    makeRoom();
    await tests.end();
    spawnSync('umount', [disk]);
  }
  rmdirSync(disk);
});

/** What a test listens to, for as long as it runs. */
const listening: (() => void)[] = [];
afterEach(async () => {
  if (!mounted) return;
  for (const end of listening.splice(0)) end();
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
  const moments: [string, EventName, (payload: never) => boolean][] = [
    ['before the first checkpoint', 'renders.text', () => true],
    ['between two checkpoints', 'renders.step', ({ step }: Step) => step.step === 1],
    ['as the clip is begun', 'renders.step', ({ step }: Step) => step.step === 2],
    ['as the clip is completed', 'renders.progress', ({ progress }: Progress) => progress.phase === 'muxing'],
  ];

  test.each(moments)('%s: the queue waits and says why, and goes on when there is room', async (_, name, matches) => {
    once(name, matches, () => fill());
    const id = await render();
    await held();
    expect(await status()).toMatchObject({ mode: 'waiting-for-space', runningId: null, queued: 1 });
    expect((await status()).reason).toMatch(/disk is (nearly )?full.*[Ff]ree some space/);
    makeRoom();
    expect(await hashOf(id)).toBe(expected);
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
    expect(await hashOf(id)).toBe(expected);
    await opened.client.call('settings.update', { minimumFreeBytes: 0 });
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

describe.skipIf(!mounted)('a place that cannot be written', () => {
  test('pauses the queue with the reason; the render goes on when asked to', async () => {
    const work = join(folder, 'work');
    const id = await render('2');
    await hashOf(id);
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
    await until(async () => (await status()).mode === 'paused', 60_000);
    expect((await status()).reason).toMatch(/[Nn]ot a directory|ENOTDIR/);
    expect(await opened.client.call('renders.get', { id: failing })).toMatchObject({ state: 'queued' });
    for (const name of readdirSync(work)) rmSync(join(work, name));
    await opened.client.call('queue.resume');
    expect(await hashOf(failing)).toBe(expected);
  });
});
