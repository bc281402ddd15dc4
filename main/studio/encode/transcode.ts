/** A finished clip in another format, or one of its frames as a picture. */
import { rm, writeFile } from 'node:fs/promises';
import { StudioError } from '../../../contract/errors.ts';
import type { EncodedClip, EncodeOptions, Encoder } from './encoder.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { openEncoder } from './openEncoder.ts';
import { PngWriter } from './pngSequence.ts';
import { readComment } from './readComment.ts';
import { type ClipFacts, readFrames } from './readFrames.ts';
import { moveIntoPlace, temporaryBeside } from '../files/temporary.ts';

export interface TranscodeOptions extends Pick<EncodeOptions, 'format' | 'path' | 'rateFactor'> {
  source: string;
}

/** Size, rate and settings are those of the source. `onFrame` counts frames. Errors: io, unsupported, disk-full. */
export async function transcode(options: TranscodeOptions, onFrame: (frames: number) => void): Promise<EncodedClip> {
  const { source, ...target } = options;
  const settings = (await readComment(source)) ?? undefined;
  let encoder: Encoder | undefined;
  let frames = 0;
  try {
    const open = async (facts: ClipFacts) => void (encoder = await openEncoder({ ...target, ...facts, settings }));
    for await (const frame of readFrames(source, open)) {
      await (encoder as Encoder | undefined)?.write(frame);
      onFrame(++frames);
    }
    if (!encoder || frames === 0) throw new StudioError('io', `${source}: holds no frames.`);
    return await encoder.finish();
  } catch (error) {
    await encoder?.abort();
    throw error;
  }
}

/** Writes one frame of a clip as a PNG picture. `frame` counts from 0; the last one stands in where the clip is shorter. */
export async function extractFrame(source: string, frame: number, path: string): Promise<void> {
  let picture: Buffer | undefined;
  let size: ClipFacts | undefined;
  let at = 0;
  for await (const rgb of readFrames(source, (facts) => void (size = facts))) {
    picture = rgb;
    if (at++ === frame) break;
  }
  if (!picture || !size) throw new StudioError('io', `${source}: holds no frames.`);
  const writer = await PngWriter.open(size.width, size.height);
  const temporary = temporaryBeside(path);
  try {
    await writeFile(temporary, await writer.encode(picture));
    await moveIntoPlace(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw fileFailure(error, `Writing ${path}`);
  } finally {
    writer.close();
  }
}
