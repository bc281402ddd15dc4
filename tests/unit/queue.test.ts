import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { parseClipSettings } from '../../contract/clipSettings.ts';
import { EncodeClient } from '../../main/studio/encode/encodeClient.ts';
import { until } from '../support/processes.ts';
import { type OpenedStudio, settings, type Settings, StudioTests } from '../support/studio.ts';

const tests = new StudioTests();
afterEach(() => tests.closeOwn());
afterAll(() => tests.end());

const create = ({ client }: OpenedStudio, changes: Partial<Settings> = {}, more: { place?: 'last' | 'next' } = {}) =>
  client.call('renders.create', { settings: settings(changes), ...more });

async function takeOf(opened: OpenedStudio, renderId: string) {
  const { takeId } = await opened.reaches(renderId, 'done');
  return opened.client.call('takes.get', { id: takeId as string });
}

const waiting = async ({ client }: OpenedStudio) =>
  (await client.call('renders.list', { states: ['queued', 'paused'] })).items.map((render) => render.settings.prompt);

const hashes = new Map<string, Promise<string>>();

/** The latent hash of an uninterrupted render; each is made once. */
function uninterrupted(changes: Partial<Settings>): Promise<string> {
  const key = JSON.stringify(changes);
  const hash =
    hashes.get(key) ??
    tests.shared().then(async (opened) => (await takeOf(opened, (await create(opened, changes)).id)).latentHash);
  hashes.set(key, hash);
  return hash;
}

describe('a render', () => {
  test('becomes a take: clip, poster, statistics, maps, and settings in the file', async () => {
    const opened = await tests.shared();
    const { client, studio } = opened;
    const render = await create(opened, { prompt: 'a red ball, rolling' });
    const take = await takeOf(opened, render.id);
    expect(take).toMatchObject({
      renderId: render.id,
      name: 'a red ball, rolling',
      clip: { format: 'mp4', width: 32, height: 16, frames: 5, fps: 8 },
      bitIdentical: true,
      meanDensity: 1,
      fileExists: true,
      trashedAt: null,
    });
    const clip = await studio.media(take.clip.mediaId);
    const poster = await studio.media(take.posterMediaId as string);
    expect([clip, poster].map((path) => existsSync(path as string))).toEqual([true, true]);

    const encoder = new EncodeClient();
    const kept = parseClipSettings(await encoder.readComment(clip as string));
    await encoder.stop();
    expect(kept).toMatchObject({ model: { id: 'test' }, request: { prompt: 'a red ball, rolling', seed: '1' } });

    const statistics = await client.call('renders.statistics', { id: render.id });
    expect(statistics.steps.map(({ step, layers }) => [step, layers.length])).toEqual([
      [0, 2],
      [1, 2],
      [2, 2],
      [3, 2],
    ]);
    expect(statistics.mappedSteps.map(({ step }) => step)).toEqual([0, 1, 2, 3]);
    const maps = await client.call('renders.maps', { id: render.id, step: 2 });
    expect([...new Float32Array(maps.data.slice().buffer)]).toEqual([0.25, 0.75, 0, 1]);
    expect(readdirSync(join((await client.call('studio.status')).library.folder, 'work'))).toEqual([]);
  });

  test('is told about as it goes: phases forward only, steps in order, the end last', async () => {
    const opened = await tests.shared();
    const { id } = await create(opened);
    await opened.reaches(id, 'done');
    await until(() => opened.eventsOf('renders.changed').some(({ state }) => state === 'done'), 60_000);
    expect(opened.eventsOf('renders.step').map(({ step }) => step.step)).toEqual([0, 1, 2, 3]);
    const order = ['loading', 'encoding', 'sampling', 'decoding', 'muxing'];
    const fractions = opened.eventsOf('renders.progress').map(({ progress }) => progress.fraction);
    const phases = opened.eventsOf('renders.progress').map(({ progress }) => order.indexOf(progress.phase));
    expect(phases).toEqual([...phases].sort());
    expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
    expect(opened.eventsOf('renders.changed').map(({ state }) => state)).toEqual(['queued', 'running', 'done']);
  });

  test('gives previews and maps only to those who watch it', async () => {
    const opened = await tests.shared();
    const other = opened.connect('other');
    const seen: number[] = [];
    const unseen: number[] = [];
    opened.client.on('renders.preview', ({ step }) => seen.push(step));
    other.on('renders.preview', ({ step }) => unseen.push(step));
    await opened.client.call('queue.pause');
    const { id } = await create(opened);
    await opened.client.call('renders.watch', { id });
    await opened.client.call('queue.resume');
    await opened.reaches(id, 'done');
    expect(seen).toEqual([0, 1, 2, 3]);
    expect(unseen).toEqual([]);
  });

  test('is refused with the field before it is queued', async () => {
    const opened = await tests.shared();
    await expect(create(opened, { width: 33 })).rejects.toMatchObject({ code: 'bad-request', field: 'width' });
    await expect(create(opened, { frames: 6 })).rejects.toMatchObject({
      code: 'bad-request',
      field: 'settings.frames',
    });
    await expect(create(opened, { model: 'other' })).rejects.toMatchObject({ code: 'not-found', field: 'model' });
    expect(await waiting(opened)).toEqual([]);
  });

  test('that cannot be done fails with the reason, and the next one runs', async () => {
    const opened = await tests.shared();
    const bad = await create(opened, { prompt: 'fail at 1' });
    const good = await create(opened);
    expect((await opened.reaches(bad.id, 'failed')).error).toEqual({
      code: 'numerical-fault',
      message: 'the latent is not finite',
    });
    await opened.reaches(good.id, 'done');
  });
});

describe('the queue', () => {
  test('keeps order: last, next, moved, and over a restart', async () => {
    const folder = tests.folder();
    let opened = await tests.open(folder);
    const { client } = opened;
    await client.call('queue.pause');
    for (const prompt of ['a', 'b', 'c', 'd']) await create(opened, { prompt });
    await create(opened, { prompt: 'first' }, { place: 'next' });
    const ids = Object.fromEntries(
      (await client.call('renders.list', {})).items.map(({ id, settings }) => [settings.prompt, id]),
    ) as Record<string, string>;
    await client.call('renders.move', {
      ids: [ids['d'] as string, ids['a'] as string],
      to: { before: ids['b'] as string },
    });
    await client.call('renders.move', { ids: [ids['c'] as string], to: 'first' });
    expect(await waiting(opened)).toEqual(['c', 'first', 'd', 'a', 'b']);
    await opened.close();
    opened = await tests.open(folder);
    expect(await waiting(opened)).toEqual(['c', 'first', 'd', 'a', 'b']);
    expect(await opened.client.call('queue.status')).toMatchObject({ mode: 'paused', queued: 5 });
  });

  test('finds room between two neighbours again and again', async () => {
    const opened = await tests.shared();
    const { client } = opened;
    await client.call('queue.pause');
    const [first, second, third] = [
      await create(opened, { prompt: '1' }),
      await create(opened, { prompt: '2' }),
      await create(opened, { prompt: '3' }),
    ];
    for (let round = 0; round < 60; round++) {
      const [a, b] = round % 2 === 0 ? [second, first] : [first, second];
      await client.call('renders.move', { ids: [a.id], to: { before: b.id } });
    }
    expect(await waiting(opened)).toEqual(['1', '2', '3']);
    expect(third.position).toBeGreaterThan(0);
  });

  test('sweeps over seeds, duplicates, and renders a take again at another size', async () => {
    const opened = await tests.shared();
    const { client } = opened;
    const sweep = await client.call('renders.createSweep', { settings: settings(), seeds: ['7', '8'], kind: 'draft' });
    const listed = await client.call('renders.list', { sweepId: sweep.sweepId });
    expect(listed.items.map(({ settings, kind }) => [settings.seed, kind])).toEqual([
      ['7', 'draft'],
      ['8', 'draft'],
    ]);
    const random = await client.call('renders.createSweep', { settings: settings(), seeds: { count: 3 } });
    expect(new Set(random.renders.map(({ settings }) => settings.seed)).size).toBe(3);
    const copy = await client.call('renders.duplicate', { id: random.renders[0]?.id ?? '', changes: { steps: 2 } });
    expect(copy.settings).toEqual({ ...random.renders[0]?.settings, steps: 2 });

    const draft = await takeOf(opened, sweep.renders[0]?.id ?? '');
    const final = await client.call('renders.createFromTake', {
      takeId: draft.id,
      changes: { width: 64, height: 32, steps: 6 },
    });
    expect(final).toMatchObject({
      kind: 'final',
      sourceTakeId: draft.id,
      settings: { ...draft.settings, width: 64, height: 32, steps: 6 },
    });
  });

  test('pauses everything after the running step and goes on to the same clip, over a restart too', async () => {
    const changes = { prompt: 'slow', steps: 3 };
    const expected = await uninterrupted(changes);
    const folder = tests.folder();
    let opened = await tests.open(folder);
    const { id } = await create(opened, changes);
    await until(() => opened.eventsOf('renders.step').length === 1, 60_000);
    await opened.client.call('queue.pause');
    const paused = await opened.reaches(id, 'queued');
    expect(paused.stepsDone).toBeGreaterThan(0);
    await opened.close();
    opened = await tests.open(folder);
    await opened.client.call('queue.resume');
    expect(await takeOf(opened, id)).toMatchObject({ latentHash: expected, bitIdentical: true });
  });

  test('pauses and resumes one render while others go on', async () => {
    const opened = await tests.shared();
    const slow = await create(opened, { prompt: 'slow', steps: 3 });
    const quick = await create(opened);
    await opened.reaches(slow.id, 'running');
    const pausing = await opened.client.call('renders.pause', { id: slow.id });
    expect(pausing.progress?.pausing).toBe(true);
    await opened.reaches(slow.id, 'paused');
    await opened.reaches(quick.id, 'done');
    await opened.client.call('renders.resume', { id: slow.id });
    await opened.reaches(slow.id, 'done');
  });

  test('finishes the running render, then stops', async () => {
    const opened = await tests.shared();
    const first = await create(opened, { prompt: 'slow', steps: 1 });
    const second = await create(opened);
    await opened.reaches(first.id, 'running');
    expect(await opened.client.call('queue.finishCurrent')).toMatchObject({ mode: 'finishing' });
    await opened.reaches(first.id, 'done');
    await until(async () => (await opened.client.call('queue.status')).mode === 'paused', 60_000);
    expect(await opened.client.call('renders.get', { id: second.id })).toMatchObject({ state: 'queued' });
  });

  test('cancels in the middle of a step; a retry goes on to the same clip', async () => {
    const changes = { prompt: 'slow', steps: 3 };
    const expected = await uninterrupted(changes);
    const opened = await tests.shared();
    const { id } = await create(opened, changes);
    await until(() => opened.eventsOf('renders.step').length === 1, 60_000);
    expect(await opened.client.call('renders.cancel', { id })).toMatchObject({ state: 'cancelled' });
    expect(opened.eventsOf('renders.step')).toHaveLength(1);
    await opened.client.call('renders.retry', { id });
    expect((await takeOf(opened, id)).latentHash).toBe(expected);
    await expect(opened.client.call('renders.retry', { id })).rejects.toMatchObject({ code: 'conflict' });
  });

  test('edits a waiting render; only what changes the picture begins anew', async () => {
    const opened = await tests.shared();
    const { client } = opened;
    const { id } = await create(opened, { prompt: 'slow', steps: 3 });
    await until(() => opened.eventsOf('renders.step').length === 1, 60_000);
    await expect(client.call('renders.edit', { id, changes: { steps: 2 } })).rejects.toMatchObject({
      code: 'conflict',
    });
    await client.call('renders.pause', { id });
    const { stepsDone } = await opened.reaches(id, 'paused');
    expect(await client.call('renders.edit', { id, changes: { fps: 12 } })).toMatchObject({ stepsDone });
    expect(await client.call('renders.edit', { id, changes: { steps: 2, prompt: 'quick' } })).toMatchObject({
      stepsDone: 0,
    });
    await client.call('renders.resume', { id });
    const take = await takeOf(opened, id);
    expect(take).toMatchObject({ clip: { fps: 12 }, settings: { steps: 2, prompt: 'quick' } });
    expect((await client.call('renders.statistics', { id })).steps).toHaveLength(2);
    expect(take.latentHash).toBe(await uninterrupted({ steps: 2, prompt: 'quick' }));
  });

  test('removes and restores renders; the restored one waits for a word', async () => {
    const opened = await tests.shared();
    const { client } = opened;
    await client.call('queue.pause');
    const { id } = await create(opened);
    await client.call('renders.remove', { ids: [id] });
    expect(await waiting(opened)).toEqual([]);
    await client.call('renders.restore', { ids: [id] });
    expect(await client.call('renders.get', { id })).toMatchObject({ state: 'paused' });
    await client.call('renders.remove', { ids: [id] });
    await client.call('takes.emptyTrash');
    await expect(client.call('renders.get', { id })).rejects.toMatchObject({ code: 'not-found' });
  });

  test('removes a running render by cancelling it first', async () => {
    const opened = await tests.shared();
    const { id } = await create(opened, { prompt: 'slow', steps: 3 });
    await opened.reaches(id, 'running');
    await opened.client.call('renders.remove', { ids: [id] });
    expect(await opened.client.call('renders.get', { id })).toMatchObject({ state: 'cancelled' });
    expect(await opened.client.call('queue.status')).toMatchObject({ runningId: null });
  });
});

describe('when the engine fails under a render', () => {
  test('a killed engine is started again and the clip is the same', async () => {
    const changes = { prompt: 'slow', steps: 3 };
    const expected = await uninterrupted(changes);
    const opened = await tests.shared();
    await opened.client.call('settings.update', { checkpointSeconds: 0 });
    const { folder } = (await opened.client.call('studio.status')).library;
    const { id } = await create(opened, changes);
    await until(() => existsSync(join(folder, 'work', id, 'checkpoint.safetensors')), 60_000);
    process.kill(opened.studio.enginePid as number, 'SIGKILL');
    const take = await takeOf(opened, id);
    expect(take.latentHash).toBe(expected);
    expect(await opened.client.call('renders.get', { id })).toMatchObject({ engineCrashes: 1 });
    expect((await opened.client.call('engine.status')).crashes).toBeGreaterThan(0);
    const done = opened.eventsOf('renders.step').map(({ step }) => step.step);
    expect(done.filter((step) => step === 0)).toHaveLength(1);
  });

  test('three crashes at one step end it with the reason, and the next render runs', async () => {
    const opened = await tests.shared();
    const bad = await create(opened, { prompt: 'crash at 1' });
    const good = await create(opened);
    const failed = await opened.reaches(bad.id, 'failed');
    expect(failed).toMatchObject({ engineCrashes: 3, error: { code: 'engine-crashed' } });
    expect(failed.error?.message).toMatch(/^It ended 3 times at step 2 of 4\..*planted fault/);
    await opened.reaches(good.id, 'done');
  });

  test('a restart asked for costs nothing and counts as no crash', async () => {
    const opened = await tests.shared();
    const { id } = await create(opened, { prompt: 'slow', steps: 2 });
    await opened.reaches(id, 'running');
    await opened.client.call('engine.restart');
    await opened.reaches(id, 'done');
    expect(await opened.client.call('renders.get', { id })).toMatchObject({ engineCrashes: 0 });
  });

  test('a damaged checkpoint costs its steps, not the render', async () => {
    const changes = { prompt: 'slow', steps: 3 };
    const expected = await uninterrupted(changes);
    const opened = await tests.shared();
    const { folder } = (await opened.client.call('studio.status')).library;
    const { id } = await create(opened, changes);
    await until(() => opened.eventsOf('renders.step').length === 1, 60_000);
    await opened.client.call('renders.pause', { id });
    await opened.reaches(id, 'paused');
    writeFileSync(join(folder, 'work', id, 'checkpoint.safetensors'), 'half a file');
    await opened.client.call('renders.resume', { id });
    expect((await takeOf(opened, id)).latentHash).toBe(expected);
    const { steps, text, plan } = await opened.client.call('renders.statistics', { id });
    expect([steps.map(({ step }) => step), text === null, plan === null]).toEqual([[0, 1, 2], false, false]);
  });

  test('an engine that cannot start pauses the queue; nothing is lost', async () => {
    const folder = tests.folder();
    let opened = await tests.open(folder);
    await opened.client.call('queue.pause');
    const { id } = await create(opened);
    await opened.close();
    opened = await tests.open(folder, { addon: join(tests.root, 'no-such.node') });
    await opened.client.call('queue.resume');
    const told = () => opened.client.call('queue.status');
    await until(async () => (await told()).mode === 'paused', 60_000);
    expect((await told()).reason).toMatch(/native engine cannot be loaded/);
    expect(await opened.client.call('engine.status')).toMatchObject({ state: 'unavailable' });
    expect(await opened.client.call('renders.get', { id })).toMatchObject({ state: 'queued' });
    await opened.close();
    opened = await tests.open(folder);
    await opened.reaches(id, 'done');
  });
});

describe('one library', () => {
  test('has one owner, who is named to the second', async () => {
    const folder = tests.folder();
    const opened = await tests.open(folder);
    await opened.studio.announce('http://127.0.0.1:4000/?token=secret');
    const second = tests.open(folder);
    await expect(second).rejects.toMatchObject({ code: 'library-locked' });
    await expect(second).rejects.toThrow(
      /open in another VMoBA Studio \(process \d+, reachable at http:\/\/127\.0\.0\.1:4000\)/,
    );
    await opened.close();
    await (await tests.open(folder)).close();
  });

  test('closed in the middle of a render goes on from the last finished step', async () => {
    const changes = { prompt: 'slow', steps: 3 };
    const expected = await uninterrupted(changes);
    const folder = tests.folder();
    let opened = await tests.open(folder);
    const { id } = await create(opened, changes);
    await until(() => opened.eventsOf('renders.step').length === 1, 60_000);
    await opened.close();
    opened = await tests.open(folder);
    expect((await takeOf(opened, id)).latentHash).toBe(expected);
    expect(opened.eventsOf('renders.step').map(({ step }) => step.step)).toEqual([1, 2]);
  });
});
