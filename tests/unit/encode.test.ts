import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EncodeClient } from '../../main/studio/encode/encodeClient.ts';
import { type ClipFormat, fileEndings } from '../../main/studio/encode/formats.ts';
import { frameRateFraction } from '../../main/studio/encode/frameRate.ts';
import { decode, probe, psnr, remux, testFrames } from '../support/clips.ts';
import { exists, until } from '../support/processes.ts';

const client = new EncodeClient();
const folder = mkdtempSync(join(tmpdir(), 'vmoba-encode-'));
const settings = JSON.stringify({ prompt: 'a „red“ ball ⚽ — 红球', seed: '18446744073709551615' });
const width = 96;
const height = 64;
const frames = 17;
const source = testFrames(width, height, frames);

async function encode(
  format: ClipFormat,
  name: string,
  changes: { width?: number; height?: number; rgb?: Uint8Array } = {},
) {
  const path = join(folder, `${name}${fileEndings[format]}`);
  const clip = await client.open({ format, path, width, height, fps: 16, settings, ...changes });
  const rgb = changes.rgb ?? source;
  const frameBytes = (changes.width ?? width) * (changes.height ?? height) * 3;
  for (let at = 0; at < rgb.length; at += 4 * frameBytes) await clip.write(rgb.subarray(at, at + 4 * frameBytes));
  return clip.finish();
}

beforeAll(() => client.readComment(folder).catch(() => {}), 30_000);
afterAll(async () => {
  await client.stop();
  rmSync(folder, { recursive: true, force: true });
});

const bt709 = { color_range: 'tv', color_space: 'bt709', color_transfer: 'bt709', color_primaries: 'bt709' };

describe('video files', () => {
  test.each([
    { format: 'mp4', codec: 'h264', pixels: 'yuv420p', decibels: 34 },
    { format: 'webm-vp9', codec: 'vp9', pixels: 'yuv420p', decibels: 34 },
    { format: 'webm-av1', codec: 'av1', pixels: 'yuv420p', decibels: 34 },
    { format: 'mov-prores', codec: 'prores', pixels: 'yuv422p10le', decibels: 38 },
  ] as const)('$format plays everywhere, its colours named and kept', async ({ format, codec, pixels, decibels }) => {
    const clip = await encode(format, 'clip');
    expect(clip).toMatchObject({ width, height, frames, fps: 16, bytes: readFileSync(clip.path).length });
    expect(probe(clip.path)).toMatchObject({
      codec_name: codec,
      width,
      height,
      pix_fmt: pixels,
      r_frame_rate: '16/1',
      nb_read_frames: String(frames),
      ...bt709,
    });
    // A wrong matrix or range costs more than 10 dB on these saturated gradients.
    expect(psnr(decode(clip.path), source)).toBeGreaterThan(decibels);
  });

  test('an odd size is padded where the format wants even ones', async () => {
    const rgb = testFrames(33, 31, 5);
    const clip = await encode('mp4', 'odd', { width: 33, height: 31, rgb });
    expect(probe(clip.path)).toMatchObject({ width: 34, height: 32, nb_read_frames: '5' });
    expect(clip).toMatchObject({ width: 34, height: 32 });
    const vp9 = await encode('webm-vp9', 'odd', { width: 33, height: 31, rgb });
    expect(probe(vp9.path)).toMatchObject({ width: 33, height: 31 });
  });

  test('nothing is in place before the clip is complete, and an abandoned one leaves nothing', async () => {
    const path = join(folder, 'abandoned.mp4');
    const clip = await client.open({ format: 'mp4', path, width, height, fps: 16 });
    await clip.write(source);
    expect(existsSync(path)).toBe(false);
    await clip.abort();
    expect(readdirSync(folder).filter((name) => name.includes('abandoned'))).toEqual([]);
  });
});

test('GIF keeps every frame and the clip length', async () => {
  const clip = await encode('gif', 'clip');
  expect(probe(clip.path)).toMatchObject({ codec_name: 'gif', width, height, nb_read_frames: String(frames) });
  expect(psnr(decode(clip.path).subarray(0, source.length), source)).toBeGreaterThan(28);
});

test('a PNG sequence is exact', async () => {
  const clip = await encode('png', 'sequence');
  expect(readdirSync(clip.path).length).toBe(frames + 1);
  expect(Buffer.from(decode(join(clip.path, 'frame_%04d.png'))).equals(source)).toBe(true);
});

describe('settings', () => {
  test.each(['mp4', 'webm-vp9', 'webm-av1', 'mov-prores', 'gif', 'png'] as const)(
    'come back from %s',
    async (format) => {
      const clip = await encode(format, 'settings', { rgb: source.subarray(0, width * height * 3 * 2) });
      const text = await client.readComment(clip.path);
      expect(JSON.parse(text ?? 'null')).toEqual(JSON.parse(settings));
    },
  );

  test.each([
    ['mp4', 'mp4'],
    ['mp4', 'mkv'],
    ['webm-vp9', 'webm'],
    ['webm-vp9', 'mp4'],
    ['mov-prores', 'mov'],
  ] as const)('survive a remux from %s to %s', async (format, to) => {
    const clip = await encode(format, 'original', { rgb: source.subarray(0, width * height * 3 * 2) });
    const copy = join(folder, `copy-${format}.${to}`);
    remux(clip.path, copy);
    expect(JSON.parse((await client.readComment(copy)) ?? 'null')).toEqual(JSON.parse(settings));
  });

  test('of 100,000 characters fit every format', async () => {
    const long = JSON.stringify({ prompt: 'ü'.repeat(50_000) });
    for (const format of ['mp4', 'webm-vp9', 'mov-prores', 'gif', 'png'] as const) {
      const path = join(folder, `long-${format}${fileEndings[format]}`);
      const clip = await client.open({ format, path, width, height, fps: 16, settings: long });
      await clip.write(source.subarray(0, width * height * 3));
      const { path: written } = await clip.finish();
      expect(JSON.parse((await client.readComment(written)) ?? 'null'), format).toEqual(JSON.parse(long));
    }
  });

  test('are absent from files without any, and broken files are errors or empty, never crashes', async () => {
    const plain = join(folder, 'plain.bin');
    writeFileSync(plain, 'no clip at all');
    await expect(client.readComment(plain)).rejects.toMatchObject({ code: 'bad-clip-file' });
    await expect(client.readComment(join(folder, 'missing.mp4'))).rejects.toMatchObject({ code: 'io' });
    const whole = readFileSync((await encode('png', 'torn')).path + '/frame_0001.png');
    const torn = join(folder, 'torn.png');
    for (const length of [8, 20, 34, 45, 60]) {
      writeFileSync(torn, whole.subarray(0, length));
      expect(await client.readComment(torn)).toBeNull();
    }
  });
});

describe('a finished clip', () => {
  test.each(['webm-vp9', 'mov-prores', 'gif', 'png'] as const)('becomes %s with its settings', async (format) => {
    const { path: from } = await encode('mp4', 'source');
    const path = join(folder, `transcoded${fileEndings[format]}`);
    const counted: number[] = [];
    const clip = await client.transcode({ source: from, format, path }, (count) => counted.push(count));
    expect(clip).toMatchObject({ format, path, width, height, frames, fps: 16 });
    expect(counted).toEqual(Array.from({ length: frames }, (_, index) => index + 1));
    expect(JSON.parse((await client.readComment(path)) ?? 'null')).toEqual(JSON.parse(settings));
    const pixels = decode(format === 'png' ? join(path, 'frame_%04d.png') : path).subarray(0, source.length);
    expect(psnr(pixels, source)).toBeGreaterThan(format === 'gif' ? 27 : 33);
  });

  test('gives any of its frames as a picture', async () => {
    const { path: from } = await encode('webm-vp9', 'posters');
    const path = join(folder, 'poster.png');
    await client.extractFrame(from, 8, path);
    const frameBytes = width * height * 3;
    expect(psnr(decode(path), source.subarray(8 * frameBytes, 9 * frameBytes))).toBeGreaterThan(33);
  });

  test('that is none, or is cut off, is an error', async () => {
    const { path: from } = await encode('mp4', 'whole');
    const cut = join(folder, 'cut.mp4');
    const path = join(folder, 'from-cut.webm');
    writeFileSync(cut, readFileSync(from).subarray(0, 200));
    await expect(client.transcode({ source: cut, format: 'webm-vp9', path })).rejects.toMatchObject({
      code: 'unsupported',
    });
    await expect(client.extractFrame(join(folder, 'none.mp4'), 0, path)).rejects.toMatchObject({ code: 'io' });
    expect(readdirSync(folder).filter((name) => name.includes('from-cut'))).toEqual([]);
  });
});

test('frame rates are exact fractions', () => {
  expect([8, 16, 23.976, 24, 29.97, 59.94, 12.5].map((fps) => Object.values(frameRateFraction(fps)).join('/'))).toEqual(
    ['8/1', '16/1', '24000/1001', '24/1', '30000/1001', '60000/1001', '12500/1000'],
  );
});

test('a killed encoder is an error with a reason, and the next clip gets a new process', async () => {
  const clip = await client.open({ format: 'mp4', path: join(folder, 'killed.mp4'), width, height, fps: 16 });
  const { pid } = client;
  const write = clip.write(new Uint8Array(width * height * 3 * 200));
  process.kill(pid as number, 'SIGKILL');
  await expect(write).rejects.toMatchObject({ code: 'encoder-crashed', message: expect.stringContaining('SIGKILL') });
  expect(await until(() => !exists(pid), 1000)).toBe(true);
  await expect(encode('mp4', 'after')).resolves.toMatchObject({ frames });
});

test('a place that cannot be written is an error before any frame', async () => {
  const path = '/proc/clip.mp4';
  await expect(client.open({ format: 'mp4', path, width, height, fps: 16 })).rejects.toMatchObject({ code: 'io' });
  await expect(client.open({ format: 'gif', path, width, height, fps: 16 })).rejects.toMatchObject({ code: 'io' });
  await expect(client.open({ format: 'png', path, width, height, fps: 16 })).rejects.toMatchObject({ code: 'io' });
});
