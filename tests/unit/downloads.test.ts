import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { CatalogueSource } from '../../main/studio/models/catalogue.ts';
import { catalogue as realCatalogue } from '../../main/studio/models/catalogue.ts';
import { fetchFile, type FetchFileOptions } from '../../main/studio/models/fetchFile.ts';
import { fetchThroughProxy } from '../../main/studio/models/proxyFetch.ts';
import { watchFiles } from '../support/failingFiles.ts';
import { type Fault, type NastyServer, type ServedFile, startNastyServer } from '../support/nastyServer.ts';
import { until } from '../support/processes.ts';
import { StudioTests } from '../support/studio.ts';

const root = mkdtempSync(join(tmpdir(), 'vmoba-downloads-'));
const tests = new StudioTests();
const files = watchFiles(root);
let server: NastyServer;
beforeAll(async () => {
  server = await startNastyServer();
});
afterEach(() => tests.closeOwn());
afterAll(async () => {
  await server.close();
  await tests.end();
  rmSync(root, { recursive: true, force: true });
});

const content = randomBytes(300_000);
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');
const quick = { attempts: 3, firstDelayMs: 1, longestDelayMs: 5, stallMs: 300 };
let count = 0;

/** A file on the server with faults, and where it goes. */
function offered(faults: Fault[], etag: string | null = '"one"') {
  const name = `file-${++count}`;
  const path = join(root, name);
  const part = `${path}.part`;
  server.files.set(name, {
    content,
    etag,
    faults,
    arrived: (bytes) => existsSync(part) && statSync(part).size >= bytes,
  });
  server.ranges.length = 0;
  return { name, path };
}

function fetching(file: { name: string; path: string }, changes: Partial<FetchFileOptions> = {}): Promise<string> {
  return fetchFile({
    url: server.url(file.name),
    path: file.path,
    sha256: sha256(content),
    signal: new AbortController().signal,
    onProgress: () => {},
    keepFreeBytes: 0,
    retry: quick,
    ...changes,
  });
}

describe('a file', () => {
  const whole: [string, Fault[], (string | null)[]][] = [
    ['whole at once', [], [null]],
    [
      'in parts, after two dropped connections',
      [{ drop: 100_000 }, { drop: 50_000 }],
      [null, 'bytes=100000-', 'bytes=150000-'],
    ],
    ['after errors of the server', [{ status: 503 }, { status: 429 }], [null, null, null]],
    ['after more was announced than came', [{ announce: 400_000 }], [null, 'bytes=300000-', null]],
    ['after silence', [{ drop: 100_000 }, { silent: true }], [null, 'bytes=100000-', 'bytes=100000-']],
    [
      'anew, where the server sends the whole file for a part',
      [{ drop: 100_000 }, { noRange: true }],
      [null, 'bytes=100000-'],
    ],
    ['anew, where the part begins elsewhere', [{ drop: 100_000 }, { shifted: 7 }], [null, 'bytes=100000-', null]],
  ];
  test.each(whole)('arrives %s', async (_, faults, ranges) => {
    const file = offered(faults);
    expect(await fetching(file)).toBe(sha256(content));
    expect(readFileSync(file.path).equals(content)).toBe(true);
    expect(server.ranges).toEqual(ranges);
    expect(readdirSync(root).filter((name) => name.startsWith(`${file.name}.`))).toEqual([]);
  });

  test('that the server changes between two parts is begun anew, and never mixed', async () => {
    const file = offered([{ drop: 100_000 }]);
    const newer = randomBytes(300_000);
    const changing = fetching(file, { sha256: null, onProgress: () => {} });
    await until(() => server.ranges.length === 1, 60_000);
    server.files.set(file.name, { content: newer, etag: '"two"', faults: [] });
    expect(await changing).toBe(sha256(newer));
    expect(readFileSync(file.path).equals(newer)).toBe(true);
  });

  test('without a validator is never continued', async () => {
    const file = offered([{ drop: 100_000 }], null);
    await fetching(file);
    expect(server.ranges).toEqual([null, null]);
  });

  test('with other bytes than expected is refused and removed', async () => {
    const file = offered([]);
    const failing = fetching(file, { sha256: sha256(Buffer.from('something else')) });
    await expect(failing).rejects.toMatchObject({ code: 'download-failed' });
    await expect(failing).rejects.toThrow(/is not the expected one .* It was removed/);
    expect(readdirSync(root).filter((name) => name.startsWith(file.name))).toEqual([]);
  });

  test('of which more comes than was announced is refused', async () => {
    const file = offered([{ announce: 1000 }, { announce: 1000 }, { announce: 1000 }]);
    await expect(fetching(file, { sha256: sha256(content) })).rejects.toMatchObject({ code: 'download-failed' });
    expect(existsSync(file.path)).toBe(false);
  });

  test('that is not there, or never answered, fails with the reason after a few tries', async () => {
    await expect(fetching({ name: 'no-such', path: join(root, 'x') })).rejects.toThrow(/the server answered 404/);
    const dead = offered([{ status: 500 }, { status: 500 }, { status: 500 }]);
    await expect(fetching(dead)).rejects.toThrow(/the server answered 500 \(tried 3 times\)/);
    await expect(fetching({ name: 'x', path: join(root, 'y') }, { url: 'http://127.0.0.1:9/x' })).rejects.toMatchObject(
      { code: 'download-failed' },
    );
  });

  test('that does not fit is not begun', async () => {
    const file = offered([]);
    const failing = fetching(file, { keepFreeBytes: Number.MAX_SAFE_INTEGER });
    await expect(failing).rejects.toMatchObject({ code: 'disk-full' });
    await expect(failing).rejects.toThrow(/Not enough space for this download: 1 MB are still to come/);
    expect(existsSync(`${file.path}.part`)).toBe(false);
  });

  test.each([
    ['ENOSPC', 'disk-full'],
    ['EIO', 'io'],
  ] as const)('that cannot be written on in the middle (%s) keeps what came and goes on there', async (code, told) => {
    const file = offered([]);
    files.fail({ call: 'write', path: `${file.name}\\.part`, after: 1, code });
    await expect(fetching(file)).rejects.toMatchObject({ code: told });
    expect(files.stop()).toHaveLength(1);
    const kept = statSync(`${file.path}.part`).size;
    expect(await fetching(file)).toBe(sha256(content));
    expect(server.ranges).toEqual([null, `bytes=${kept}-`]);
  });

  test('that was stopped goes on where it was, after a restart too', async () => {
    const file = offered([{ drop: 100_000 }, { silent: true }]);
    const stopping = new AbortController();
    const stopped = fetching(file, { signal: stopping.signal });
    await until(() => server.ranges.length === 2, 60_000);
    stopping.abort();
    await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
    expect(await fetching(file)).toBe(sha256(content));
    expect(server.ranges.at(-1)).toBe('bytes=100000-');
  });

  test('whose part was tampered with meanwhile is not accepted', async () => {
    const file = offered([{ drop: 100_000 }, { status: 500 }, { status: 500 }, { status: 500 }]);
    await expect(fetching(file)).rejects.toMatchObject({ code: 'download-failed' });
    const part = readFileSync(`${file.path}.part`);
    part[10] = (part[10] ?? 0) ^ 1;
    writeFileSync(`${file.path}.part`, part);
    await expect(fetching(file)).rejects.toThrow(/is not the expected one/);
    expect(existsSync(file.path)).toBe(false);
    expect(await fetching(file)).toBe(sha256(content));
  });

  test('goes through the proxy that the environment names', async () => {
    const file = offered([]);
    process.env['HTTP_PROXY'] = 'http://127.0.0.1:9';
    try {
      await expect(fetching(file, { fetch: fetchThroughProxy() })).rejects.toMatchObject({ code: 'download-failed' });
      process.env['NO_PROXY'] = '127.0.0.1';
      expect(await fetching(file, { fetch: fetchThroughProxy() })).toBe(sha256(content));
    } finally {
      delete process.env['HTTP_PROXY'];
      delete process.env['NO_PROXY'];
    }
  });
});

describe('a model of the catalogue', () => {
  const parts = {
    dit: 'dit.safetensors',
    vae: 'vae.safetensors',
    textEncoder: 'text.safetensors',
    tokenizer: 'spiece.model',
  };

  function source(id: string, faults: Partial<Record<keyof typeof parts, Fault[]>> = {}): CatalogueSource {
    return {
      id,
      name: 'Small model',
      description: 'For tests.',
      licence: 'MIT',
      licenceUrl: '',
      homepage: '',
      files: Object.entries(parts).map(([role, name]) => {
        server.files.set(`${id}-${name}`, { content, etag: '"one"', faults: faults[role as keyof typeof parts] ?? [] });
        return {
          role: role as keyof typeof parts,
          name,
          url: server.url(`${id}-${name}`),
          approximateBytes: content.length,
          sha256: sha256(content),
        };
      }),
      limits: { sideMultiple: 16 },
      defaults: { steps: 7 },
    };
  }

  test('is downloaded, listed with licence, defaults and hashes, verified and removed', async () => {
    const opened = await tests.open(undefined, {
      catalogue: [source('small', { vae: [{ drop: 1000 }] })],
      downloadRetry: quick,
    });
    const { client } = opened;
    const offers = (await client.call('models.catalogue')).items;
    expect(offers.map(({ id, installed, builtIn }) => [id, installed, builtIn])).toEqual([
      ['test', true, true],
      ['small', false, false],
    ]);
    await client.call('models.download', { catalogueId: 'small' });
    await until(async () => (await client.call('models.list')).items.length === 2, 60_000);
    const model = (await client.call('models.list')).items.find(({ id }) => id === 'small');
    expect(model).toMatchObject({
      licence: 'MIT',
      origin: 'download',
      state: 'ok',
      defaults: { steps: 7 },
      bytes: 4 * content.length,
    });
    const verified = await client.call('models.verify', { id: 'small' });
    expect(verified.files.map(({ state }) => state)).toEqual(['same', 'same', 'same', 'same']);
    const vae = join(model?.folder ?? '', 'vae.safetensors');
    writeFileSync(
      vae,
      content.map((byte, at) => (at === 150_000 ? byte ^ 1 : byte)),
    );
    expect(await client.call('models.verify', { id: 'small' })).toMatchObject({ ok: false });
    rmSync(vae);
    expect((await client.call('models.list')).items.find(({ id }) => id === 'small')).toMatchObject({
      state: 'missing',
    });
    await expect(client.call('models.download', { catalogueId: 'small' })).rejects.toMatchObject({ code: 'conflict' });
    await client.call('models.remove', { id: 'small' });
    expect(existsSync(model?.folder ?? '')).toBe(false);
    expect((await client.call('models.downloads')).items).toEqual([]);
  });

  test('can be paused over a restart, gone on with, and cancelled', async () => {
    const folder = tests.folder();
    const options = {
      catalogue: [source('paused', { vae: [{ drop: 1000 }, { silent: true }] })],
      downloadRetry: { ...quick, stallMs: 60_000 },
    };
    let opened = await tests.open(folder, options);
    await opened.client.call('models.download', { catalogueId: 'paused' });
    await until(() => server.files.get('paused-vae.safetensors')?.faults.length === 0, 60_000);
    const [running] = (await opened.client.call('models.downloads')).items;
    expect(await opened.client.call('models.pauseDownload', { id: running?.id ?? '' })).toMatchObject({
      state: 'paused',
    });
    await opened.close();
    opened = await tests.open(folder, options);
    const [waiting] = (await opened.client.call('models.downloads')).items;
    expect(waiting).toMatchObject({ catalogueId: 'paused', state: 'paused' });
    expect(waiting?.receivedBytes).toBeGreaterThanOrEqual(content.length);
    await opened.client.call('models.download', { catalogueId: 'paused' });
    await until(async () => (await opened.client.call('models.list')).items.length === 2, 60_000);
    await opened.client.call('models.remove', { id: 'paused' });

    server.files.get('paused-dit.safetensors')?.faults.push({ silent: true });
    const { id } = await opened.client.call('models.download', { catalogueId: 'paused' });
    await opened.client.call('models.cancelDownload', { id });
    expect(readdirSync(join(folder, 'downloads'))).toEqual([]);
  });

  test('for which the disk is too full waits, says how much is missing, and goes on by itself', async () => {
    const folder = tests.folder();
    const opened = await tests.open(folder, {
      catalogue: [source('roomy', { vae: [{ drop: 1000 }, { silent: true }] })],
      downloadRetry: { ...quick, stallMs: 60_000 },
    });
    const { client } = opened;
    const download = async () => (await client.call('models.downloads')).items[0];
    const reaches = (state: string) => until(async () => (await download())?.state === state, 60_000);
    const vae = server.files.get('roomy-vae.safetensors') as ServedFile;
    const part = join(folder, 'downloads/roomy/vae.safetensors.part');
    vae.arrived = (bytes) => existsSync(part) && statSync(part).size >= bytes;
    await client.call('models.download', { catalogueId: 'roomy' });
    await until(() => vae.faults.length === 0, 60_000);
    const { id } = await client.call('models.pauseDownload', { id: (await download())?.id ?? '' });
    await client.call('settings.update', { minimumFreeBytes: 1e15 });
    await client.call('models.download', { catalogueId: 'roomy' });
    expect(await reaches('waiting-for-space')).toBe(true);

    const waiting = await download();
    const { bavail, bsize } = statfsSync(tests.root);
    const rest = 4 * content.length - (waiting?.receivedBytes ?? 0);
    expect(waiting).toMatchObject({ receivedBytes: content.length + 1000, totalBytes: 4 * content.length });
    expect(Math.abs((waiting?.missingBytes ?? 0) - (1e15 + rest - bavail * bsize))).toBeLessThan(1e10);
    const megabytes = Math.ceil((waiting?.missingBytes ?? 0) / 1e6);
    expect(waiting?.error?.message).toContain(`another ${megabytes} MB must become free`);

    // In vain: it waits again.
    const told = opened.eventsOf('models.download').length;
    expect(await client.call('models.download', { catalogueId: 'roomy' })).toMatchObject({
      state: 'running',
      missingBytes: null,
      error: null,
    });
    await until(() => opened.eventsOf('models.download').length > told + 1, 60_000);
    expect(await reaches('waiting-for-space')).toBe(true);

    expect(await client.call('models.pauseDownload', { id })).toMatchObject({ state: 'paused', missingBytes: null });
    await client.call('models.download', { catalogueId: 'roomy' });
    expect(await reaches('waiting-for-space')).toBe(true);

    server.ranges.length = 0;
    await client.call('settings.update', { minimumFreeBytes: 0 });
    const last = () => opened.eventsOf('models.download').at(-1);
    await until(() => last()?.state === 'done', 60_000);
    expect(last()).toMatchObject({ state: 'done', missingBytes: null, error: null });
    expect((await client.call('models.list')).items).toHaveLength(2);
    expect(server.ranges).toEqual(['bytes=1000-', null, null]);
  });

  test('that waits for space goes on at a press, can be cancelled, and lets the studio close', async () => {
    const folder = tests.folder();
    const ids = ['pressed', 'cancelled', 'left'];
    const opened = await tests.open(folder, {
      catalogue: ids.map((id) => source(id)),
      downloadRetry: quick,
      spaceCheckMs: 3_600_000,
    });
    const { client } = opened;
    const last = (id: string) => opened.eventsOf('models.download').findLast((one) => one.catalogueId === id);
    const reaches = (id: string, state: string) => until(() => last(id)?.state === state, 60_000);
    await client.call('settings.update', { minimumFreeBytes: 1e15 });
    for (const id of ids) {
      await client.call('models.download', { catalogueId: id });
      expect(await reaches(id, 'waiting-for-space')).toBe(true);
    }
    await client.call('models.cancelDownload', { id: last('cancelled')?.id ?? '' });
    expect(readdirSync(join(folder, 'downloads')).sort()).toEqual(['left', 'pressed']);
    await client.call('settings.update', { minimumFreeBytes: 0 });
    await client.call('models.download', { catalogueId: 'pressed' });
    expect(await reaches('pressed', 'done')).toBe(true);
    await opened.close();
    expect(ids.map((id) => last(id)?.state)).toEqual(['done', 'paused', 'paused']);
  });

  test('goes on after a restart as it was left: waiting, running, paused or failed', async () => {
    const folder = tests.folder();
    const ids = ['waits', 'runs', 'rests', 'fails'];
    const options = {
      catalogue: [
        source('waits'),
        source('runs', { vae: [{ drop: 1000 }, { silent: true }] }),
        source('rests', { vae: [{ silent: true }] }),
        source('fails', { vae: [{ status: 404 }] }),
      ],
      downloadRetry: { ...quick, stallMs: 60_000 },
    };
    let opened = await tests.open(folder, options);
    const states = async () => {
      const { items } = await opened.client.call('models.downloads');
      return Object.fromEntries(items.map(({ catalogueId, state }) => [catalogueId, state]));
    };
    const reaches = (id: string, state: string) => until(async () => (await states())[id] === state, 60_000);
    const start = (catalogueId: string) => opened.client.call('models.download', { catalogueId });
    await start('fails');
    expect(await reaches('fails', 'failed')).toBe(true);
    await opened.client.call('models.pauseDownload', { id: (await start('rests')).id });
    await start('runs');
    await until(() => server.files.get('runs-vae.safetensors')?.faults.length === 0, 60_000);
    await opened.client.call('settings.update', { minimumFreeBytes: 1e15 });
    await start('waits');
    expect(await reaches('waits', 'waiting-for-space')).toBe(true);
    await opened.close();

    // A command that only looks sets nothing going.
    opened = await tests.open(folder, { ...options, work: false });
    expect(await states()).toEqual(Object.fromEntries(ids.map((id) => [id, 'paused'])));
    await opened.close();

    opened = await tests.open(folder, options);
    expect([await reaches('waits', 'waiting-for-space'), await reaches('runs', 'waiting-for-space')]).toEqual([
      true,
      true,
    ]);
    expect(await states()).toMatchObject({ rests: 'paused', fails: 'paused' });
    await opened.client.call('settings.update', { minimumFreeBytes: 0 });
    const installed = async () => (await opened.client.call('models.list')).items.map(({ id }) => id).sort();
    await until(async () => (await installed()).length === 3, 60_000);
    expect(await installed()).toEqual(['runs', 'test', 'waits']);
    expect(await states()).toEqual({ rests: 'paused', fails: 'paused' });
    expect(readdirSync(join(folder, 'models/waits'))).not.toContain('going');
  });

  test('that the engine refuses is not listed, with the reason', async () => {
    const entry = source('broken');
    const opened = await tests.open(undefined, { catalogue: [entry], downloadRetry: quick });
    await opened.client.call('models.download', { catalogueId: 'broken' });
    await until(() => opened.eventsOf('models.download').some(({ state }) => state === 'failed'), 60_000);
    expect(opened.eventsOf('models.download').at(-1)).toMatchObject({ error: { code: 'bad-model-file' } });
    expect((await opened.client.call('models.list')).items).toHaveLength(1);
  });

  test('names files by https, with licence and role, each once', () => {
    for (const { files, licenceUrl, homepage } of realCatalogue) {
      expect(files.map(({ role }) => role).sort()).toEqual(['dit', 'textEncoder', 'tokenizer', 'vae']);
      for (const url of [licenceUrl, homepage, ...files.map((file) => file.url)]) expect(url).toMatch(/^https:\/\//);
    }
  });
});

describe('a model folder', () => {
  test('is imported by reference or as a copy, and only copies are deleted with it', async () => {
    const folder = tests.folder();
    const opened = await tests.open(folder);
    const { client } = opened;
    const said = { licence: 'MIT', knows: { colours: ['red'] }, randomWeights: true };
    const source = tests.model('mine', { id: 'mine', name: 'Mine', ...said });
    const reference = await client.call('models.import', { path: source, name: 'My model' });
    expect(reference).toMatchObject({ id: 'mine', name: 'My model', origin: 'reference', folder: source, ...said });
    // What is only shown is no reason to refuse a model.
    tests.model('mine', { id: 'mine', licence: 5, knows: 'all', randomWeights: 'no' });
    const [, odd] = (await client.call('models.list')).items;
    expect(odd).toMatchObject({ id: 'mine', state: 'ok', licence: 'MIT', knows: {} });
    await expect(client.call('models.import', { path: source })).rejects.toMatchObject({ code: 'conflict' });
    await client.call('models.remove', { id: 'mine' });
    const copy = await client.call('models.import', { path: join(source, 'model.json'), how: 'copy' });
    expect(copy.folder.startsWith(join(folder, 'models'))).toBe(true);
    await client.call('models.remove', { id: copy.id });
    expect([existsSync(copy.folder), existsSync(source)]).toEqual([false, true]);
    expect(readdirSync(join(folder, 'models'))).toEqual([]);
  });

  test('without a model.json is described from what its files are, or the lack is named', async () => {
    const folder = tests.folder();
    const { client } = await tests.open(folder);
    const loose = join(root, 'Loose Files');
    mkdirSync(loose);
    for (const name of ['a.dit.safetensors', 'b.vae.safetensors', 'c.text.safetensors'])
      writeFileSync(join(loose, name), name);
    writeFileSync(join(loose, 'old.pth'), 'pickle');
    const lacking = client.call('models.import', { path: loose });
    await expect(lacking).rejects.toMatchObject({ code: 'bad-model-file', field: 'path' });
    await expect(lacking).rejects.toThrow(
      /found no its tokeniser \(spiece\.model\)\. Files in pickle formats .* are never opened/,
    );
    writeFileSync(join(loose, 'spiece.model'), 'x');
    expect(await client.call('models.import', { path: loose, how: 'copy' })).toMatchObject({
      id: 'loose-files',
      name: 'Loose Files',
      origin: 'copy',
    });
    expect(readdirSync(join(folder, 'models'))).toHaveLength(1);
    await expect(client.call('models.import', { path: tests.model('broken') })).rejects.toMatchObject({
      code: 'bad-model-file',
    });
    await expect(client.call('models.import', { path: join(root, 'nowhere') })).rejects.toMatchObject({
      code: 'bad-model-file',
      message: `${join(root, 'nowhere')}: there is no such folder on the machine that the studio runs on.`,
    });
  });

  test('that renders wait for stays; the built-in one always does', async () => {
    const { client } = await tests.open();
    await client.call('queue.pause');
    const { id } = await client.call('models.import', { path: tests.model('wanted', { id: 'wanted' }) });
    const { settings } = await import('../support/studio.ts');
    const render = await client.call('renders.create', { settings: settings({ model: id }) });
    await expect(client.call('models.remove', { id })).rejects.toThrow(/A render is waiting for this model/);
    await client.call('renders.cancel', { id: render.id });
    await client.call('models.remove', { id });
    await expect(client.call('models.remove', { id: 'test' })).rejects.toMatchObject({ code: 'conflict' });
  });
});
