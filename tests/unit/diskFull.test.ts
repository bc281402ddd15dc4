/** A disk that fills up while a clip is written. Needs root for a small file system of its own, and is skipped without. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { EncodeClient } from '../../main/studio/encode/encodeClient.ts';
import { clipFormats, fileEndings } from '../../main/studio/encode/formats.ts';
import { openRawFrames } from '../../main/studio/render/rawFrames.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-small-'));
const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', folder]).status === 0;
const client = new EncodeClient();

afterAll(async () => {
  await client.stop();
  if (mounted) spawnSync('umount', [folder]);
  rmdirSync(folder);
});

const width = 320;
const height = 240;
/** Noise hardly compresses, so the disk fills within a few frames; few colours keep GIF quick. */
const noise = new Uint8Array(width * height * 3 * 8).map(() => 85 * Math.floor(Math.random() * 4));

test.skipIf(!mounted).each([...clipFormats, 'raw'] as const)(
  '%s: a typed error, and the space is given back',
  async (format) => {
    const size = { width, height, fps: 16 };
    const path = join(folder, `clip${format === 'raw' ? '.rgb' : fileEndings[format]}`);
    const write = async () => {
      const clip =
        format === 'raw' ? await openRawFrames({ path, ...size }) : await client.open({ format, path, ...size });
      try {
        for (let run = 0; run < 6; run++) await clip.write(noise);
        await clip.finish();
      } catch (error) {
        await clip.abort();
        throw error;
      }
    };
    await expect(write()).rejects.toMatchObject({ name: 'StudioError', code: 'disk-full' });
    expect(readdirSync(folder)).toEqual([]);
  },
);
