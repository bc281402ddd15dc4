/** Takes in other formats, and the settings that clips carry: ours, remuxed, and hostile ones. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ClipExport } from '../../contract/exports.ts';
import type { MethodInput } from '../../contract/index.ts';
import { largestPieceBytes } from '../../contract/uploads.ts';
import { clipFormats } from '../../main/studio/encode/formats.ts';
import { probe, remux } from '../support/clips.ts';
import { until } from '../support/processes.ts';
import { type OpenedStudio, settings, StudioTests } from '../support/studio.ts';

const tests = new StudioTests();
const prompt = 'a ball on "grass" — 草地上的球 🎾 \\ </script><script>alert(1)</script>';
let opened: OpenedStudio;
let takeId: string;
let folder: string;
beforeAll(async () => {
  opened = await tests.shared();
  folder = join(tests.root, 'out');
  mkdirSync(folder);
  const { id } = await opened.client.call('renders.create', {
    settings: settings({ prompt, seed: '18446744073709551615' }),
  });
  takeId = (await opened.reaches(id, 'done')).takeId as string;
});
afterAll(() => tests.end());

async function exported(input: Omit<MethodInput<'exports.start'>, 'takeId'>): Promise<ClipExport> {
  const { client } = opened;
  const { id } = await client.call('exports.start', { takeId, folder, ...input });
  const find = async () => (await client.call('exports.list')).items.find((one) => one.id === id) as ClipExport;
  await until(async () => (await find()).state !== 'running', 60_000);
  return find();
}

/** What the studio reads out of a file that someone drops on it. */
async function readBack(file: string | Buffer, name = 'dropped') {
  const content = typeof file === 'string' ? readFileSync(file) : file;
  const { client } = opened;
  const { uploadId } = await client.call('uploads.begin', { name, bytes: content.length });
  for (let at = 0; at < content.length; at += largestPieceBytes) {
    await client.call('uploads.append', {
      uploadId,
      data: new Uint8Array(content.subarray(at, at + largestPieceBytes)),
    });
  }
  const result = await client.call('takes.readSettings', { uploadId });
  await expect(client.call('uploads.append', { uploadId, data: new Uint8Array(1) })).rejects.toMatchObject({
    code: 'not-found',
  });
  return result;
}

const expected = {
  modelId: 'test',
  settings: { request: { prompt, seed: '18446744073709551615', steps: 4 }, model: { id: 'test', name: 'Test' } },
};

describe('an export', () => {
  test.each(clipFormats)('to %s is whole and carries the settings', async (format) => {
    const done = await exported({ format });
    expect(done).toMatchObject({ state: 'done', frames: 5, ofFrames: 5, error: null });
    const file = format === 'png' ? join(done.path, 'frame_0001.png') : done.path;
    if (format === 'png') expect(readdirSync(done.path)).toHaveLength(6);
    else expect(probe(file)).toMatchObject({ width: 32, height: 16, nb_read_frames: '5' });
    expect(await opened.studio.media(`${done.id}.file`)).toBe(format === 'png' ? null : done.path);
    expect(await readBack(file)).toMatchObject(expected);
    if (format === 'png') expect(await readBack(join(done.path, 'settings.json'))).toMatchObject(expected);
  });

  test.each([
    ['mp4', 'copied.mov'],
    ['mp4', 'copied.mkv'],
    ['webm-vp9', 'copied.webm'],
    ['webm-av1', 'copied.mp4'],
    ['mov-prores', 'copied.mov'],
  ] as const)('from %s keeps its settings through ffmpeg -c copy to %s', async (format, name) => {
    const { path } = await exported({ format });
    const copy = join(folder, `${format}-${name}`);
    remux(path, copy);
    expect(await readBack(copy)).toMatchObject(expected);
  });

  test('never replaces a file, is named for people, and refuses what a format has not', async () => {
    const first = await exported({ format: 'mp4' });
    const second = await exported({ format: 'mp4' });
    expect(first.path).not.toBe(second.path);
    expect(basename(second.path)).toMatch(/^a ball on grass 草地上的球 .*-\d+\.mp4$/);
    await expect(exported({ format: 'gif', rateFactor: 3 })).rejects.toMatchObject({ field: 'rateFactor' });
    await expect(exported({ format: 'mp4', folder: '/proc/nowhere' })).rejects.toMatchObject({ code: 'io' });
  });

  test('that is cancelled leaves nothing', async () => {
    const before = readdirSync(folder);
    const { client } = opened;
    const { id } = await client.call('exports.start', { takeId, folder, format: 'webm-av1' });
    await client.call('exports.cancel', { id });
    await exported({ format: 'gif' });
    expect((await client.call('exports.list')).items.find((one) => one.id === id)).toMatchObject({
      state: 'cancelled',
    });
    const left = readdirSync(folder).filter((name) => !before.includes(name) && !name.endsWith('.gif'));
    expect(left.filter((name) => !name.startsWith('.'))).toEqual([]);
  });
});

describe('hostile metadata', () => {
  const good = () => {
    const db = opened.client.call('takes.get', { id: takeId });
    return db.then(({ clip }) => opened.studio.media(clip.mediaId)).then((path) => path as string);
  };
  /** The clip with another comment. */
  async function withComment(comment: string): Promise<string> {
    const path = join(folder, `hostile-${++made}.mkv`);
    const text = join(folder, 'metadata.txt');
    writeFileSync(text, `;FFMETADATA1\ncomment=${comment.replace(/[=;#\\\n]/g, '\\$&')}\n`);
    execFileSync('ffmpeg', [
      '-v',
      'error',
      '-y',
      '-i',
      await good(),
      '-i',
      text,
      '-map_metadata',
      '1',
      '-c',
      'copy',
      path,
    ]);
    return path;
  }
  let made = 0;
  const base = {
    format: 'vmoba-clip/1',
    model: { id: 'test', name: 'x', fingerprint: 'x' },
    request: { ...settings(), negativePrompt: '', model: undefined },
    engine: { version: '', build: '', device: '' },
    latentHash: '',
  };
  const cases: [string, string, boolean][] = [
    ['well-formed, of an unknown model', JSON.stringify(base), true],
    ['no JSON', '{"format":"vmoba-clip/1"', false],
    ['another format', '{"format":"comfy"}', false],
    ['a script', '<script>alert(1)</script>', false],
    ['huge', JSON.stringify({ ...base, latentHash: 'x'.repeat(2_000_000) }), false],
    [
      'a prompt without end',
      JSON.stringify({ ...base, request: { ...base.request, prompt: 'x'.repeat(100_000) } }),
      false,
    ],
    ['nested without end', '['.repeat(100_000), false],
    ['sizes out of this world', JSON.stringify({ ...base, request: { ...base.request, width: 1e9 } }), false],
    [
      'unknown members in the request',
      JSON.stringify({ ...base, request: { ...base.request, exec: 'rm -rf /' } }),
      false,
    ],
    ['a prototype', `{"__proto__":{"polluted":true},${JSON.stringify(base).slice(1)}`, true],
  ];
  test.each(cases)('%s is harmless', async (_, comment, usable) => {
    const { settings: found, modelId } = await readBack(await withComment(comment));
    expect([found !== null, modelId]).toEqual([usable, null]);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
    expect(found === null || Object.keys(found).sort()).toEqual(
      found === null || ['engine', 'format', 'latentHash', 'model', 'request'],
    );
  });

  test.each([
    ['notes.txt', Buffer.from('a shopping list\n'.repeat(50))],
    ['paper.pdf', Buffer.concat([Buffer.from('%PDF-1.7\n'), Buffer.alloc(2000, 7)])],
    ['photo.jpg', Buffer.concat([Buffer.from([0xff, 0xd8, 0xff, 0xe0]), Buffer.alloc(2000)])],
    ['cut off.mp4', Buffer.from('\0\0\0\x20ftypisom')],
  ])('%s is refused by its name, with the kinds that are taken and nothing of our folders', async (name, content) => {
    const refused = await readBack(content, name).catch((error: unknown) => error);
    expect(refused).toMatchObject({
      code: 'bad-clip-file',
      message: `${name} is no clip, or a damaged one. The studio takes MP4, MOV, WebM, MKV and GIF clips, and exported pictures: each PNG, and their settings.json.`,
    });
  });

  test('files that are no clips are refused or empty, whatever they hold', async () => {
    const clip = readFileSync(await good());
    const files = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 300 }).map((data) => Buffer.from(data)),
      fc.tuple(fc.nat(clip.length - 1), fc.nat(255)).map(([at, value]) => Buffer.from(clip.with(at, value))),
      fc.integer({ min: 1, max: clip.length - 1 }).map((length) => clip.subarray(0, length)),
      fc.constantFrom(
        Buffer.from('#EXTM3U\nfile:///etc/passwd\n'),
        Buffer.from('ffconcat version 1.0\nfile /etc/passwd\n'),
        Buffer.from('GIF89a'),
        Buffer.from('{"format": "vmoba-clip/1"'),
        Buffer.from(`{${' '.repeat(600_000)}}`),
        Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0xff, 0xff, 0xff, 0xff]),
      ),
    );
    await fc.assert(
      fc.asyncProperty(files, async (content) => {
        const result = await readBack(content).catch((error: { code?: string }) => error.code);
        if (typeof result === 'string') expect(result).toBe('bad-clip-file');
        else expect(result).toHaveProperty('settings');
      }),
      { numRuns: 60, seed: 1 },
    );
  });
});

describe('uploads', () => {
  test('are bounded, and gone when abandoned', async () => {
    const { client } = opened;
    const { uploadId } = await client.call('uploads.begin', { name: 'x', bytes: 4 });
    await expect(client.call('takes.readSettings', { uploadId })).rejects.toMatchObject({ code: 'conflict' });
    await expect(client.call('uploads.append', { uploadId, data: new Uint8Array(5) })).rejects.toMatchObject({
      code: 'too-large',
    });
    await client.call('uploads.abandon', { uploadId });
    await expect(client.call('takes.readSettings', { uploadId })).rejects.toMatchObject({ code: 'not-found' });
    const many = await Promise.all(
      Array.from({ length: 8 }, () => client.call('uploads.begin', { name: 'x', bytes: 4 })),
    );
    await expect(client.call('uploads.begin', { name: 'x', bytes: 4 })).rejects.toMatchObject({ code: 'rate-limited' });
    for (const one of many) await client.call('uploads.abandon', one);
    const library = (await client.call('studio.status')).library.folder;
    expect(existsSync(join(library, 'uploads')) ? readdirSync(join(library, 'uploads')) : []).toEqual([]);
  });
});
