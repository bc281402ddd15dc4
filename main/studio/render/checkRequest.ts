/** Everything that can be known to be wrong with a render before any work is done for it. */
import { randomBytes } from 'node:crypto';
import { open, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { StudioError } from '../../../contract/errors.ts';
import { parseRequest } from '../../../contract/parse.ts';
import { type RenderRequest, renderRequest } from '../../../contract/renderRequest.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { makeFolder } from '../files/folders.ts';
import { cleanPrompt } from '../prompt/cleanPrompt.ts';
import { type ModelCard, readModelCard } from './modelCard.ts';

/** Parses a request and checks it against its model. Errors: bad-request with the field, bad-model-file. */
export async function checkRequest(input: unknown): Promise<{ request: RenderRequest; card: ModelCard }> {
  const request = parseRequest(renderRequest, input);
  if (cleanPrompt(request.prompt) === '') {
    throw new StudioError('bad-request', 'prompt is empty: say what the clip shows.', { field: 'prompt' });
  }
  const card = await readModelCard(request.model);
  const multiple = card.limits.sideMultiple;
  for (const field of ['width', 'height'] as const) {
    const value = request[field];
    if (value % multiple === 0) continue;
    const below = Math.max(multiple, Math.floor(value / multiple) * multiple);
    throw new StudioError(
      'bad-request',
      `${field} must be a multiple of ${multiple} for this model (${below} or ${below + multiple}), not ${value}.`,
      { field },
    );
  }
  return { request, card };
}

/** Where a request leaves what its model was made for: allowed, and worth saying. */
export function outsideTrainedRange(request: RenderRequest, card: ModelCard): string[] {
  const { minSide, maxTrainedSide, minFrames, maxTrainedFrames } = card.limits;
  const small = Math.min(request.width, request.height);
  const large = Math.max(request.width, request.height);
  return [
    ...(minSide !== undefined && small < minSide ? [`sides below ${minSide} pixels`] : []),
    ...(maxTrainedSide !== undefined && large > maxTrainedSide ? [`sides above ${maxTrainedSide} pixels`] : []),
    ...(minFrames !== undefined && request.frames < minFrames ? [`fewer than ${minFrames} frames`] : []),
    ...(maxTrainedFrames !== undefined && request.frames > maxTrainedFrames
      ? [`more than ${maxTrainedFrames} frames`]
      : []),
  ].map((what) => `${card.name} was not made for ${what}: the clip may look worse.`);
}

/** Makes sure that a file can be written there, creating its folder. Errors: disk-full, io with field `out`. */
export async function checkWritable(path: string): Promise<void> {
  const folder = dirname(path);
  const probe = join(folder, `.vmoba-${randomBytes(4).toString('hex')}.part`);
  try {
    await makeFolder(folder);
    await (await open(probe, 'wx')).close();
    await rm(probe);
  } catch (error) {
    const failure = fileFailure(error, `Writing ${path}`);
    if (failure instanceof StudioError && failure.code === 'disk-full') throw failure;
    throw new StudioError('io', `${path} cannot be written: ${(error as Error).message}`, {
      field: 'out',
      cause: error,
    });
  }
}
