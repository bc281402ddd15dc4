/** Two clips as the studio writes them, one shorter than the other, whose frames tell their number by their brightness. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { EncodeClient } from '../../../main/studio/encode/encodeClient.ts';
import { brightnessOf, clipFps, clipFrames, type ClipName, clipSide } from './clips.ts';

export default async function makeClips({ provide }: TestProject) {
  const folder = mkdtempSync(join(tmpdir(), 'vmoba-component-clips-'));
  const encoder = new EncodeClient();
  const make = async (name: ClipName) => {
    const path = join(folder, `${name}.mp4`);
    const clip = await encoder.open({ format: 'mp4', path, width: clipSide, height: clipSide, fps: clipFps });
    for (let frame = 0; frame < clipFrames[name]; frame++)
      await clip.write(new Uint8Array(clipSide * clipSide * 3).fill(brightnessOf(frame)));
    await clip.finish();
    return `data:video/mp4;base64,${readFileSync(path, 'base64')}`;
  };
  try {
    provide('clips', { long: await make('long'), short: await make('short') });
  } finally {
    await encoder.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}
