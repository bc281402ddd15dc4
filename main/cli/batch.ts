/**
 * Many renders in one engine process: the model is loaded once, encoded prompts are reused, nothing but the clips is written.
 * Made for measuring (how well a model follows its prompts) and for sweeps.
 */
import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { z } from 'zod';
import { StudioError } from '../../contract/errors.ts';
import { parseRequest } from '../../contract/parse.ts';
import type { RenderRequest } from '../../contract/renderRequest.ts';
import { EngineClient } from '../engine/engineClient.ts';
import { EncodeClient } from '../studio/encode/encodeClient.ts';
import { makeFolder } from '../studio/files/folders.ts';
import { fileEndings } from '../studio/encode/formats.ts';
import { checkRequest } from '../studio/render/checkRequest.ts';
import { type ModelCard, readModelCard } from '../studio/render/modelCard.ts';
import { openRawFrames } from '../studio/render/rawFrames.ts';
import { renderClip } from '../studio/render/renderClip.ts';
import type { Take } from '../studio/render/take.ts';
import { abortOnSignals } from './engine.ts';
import { exitCodeOf, exitCodes, reportError } from './exitCodes.ts';
import { formatSeconds } from './format.ts';
import {
  formatOf,
  modelFolder,
  policyFrom,
  rateFactorFrom,
  type RenderFlags,
  requestFromFlags,
} from './renderOptions.ts';

export interface BatchFlags extends RenderFlags {
  batch: string;
  outDir?: string;
  raw?: boolean;
  format?: string;
  crf?: string;
  json?: boolean;
}

/** A line of the input; what it leaves out comes from the options, then from the model. */
const batchLine = z.looseObject({
  /** Names the file. */
  id: z
    .union([z.string(), z.number()])
    .transform(String)
    .pipe(z.string().regex(/^[\w.-]{1,100}$/, { error: 'must be letters, digits, dots, dashes' })),
  prompt: z.string(),
  policy: z.unknown().optional(),
});

interface Entry {
  id: string;
  request: RenderRequest;
}

export async function renderBatch(flags: BatchFlags): Promise<void> {
  if (flags.outDir === undefined) throw new StudioError('bad-request', 'A batch needs --out-dir.', { field: 'outDir' });
  const model = modelFolder(flags.model);
  const card = await readModelCard(model);
  // Everything is checked before anything is rendered.
  const entries = await readEntries(flags, model, card);
  const { outDir } = flags;
  await makeFolder(outDir);
  const signal = abortOnSignals();
  const engine = EngineClient.start();
  const encoder = new EncodeClient();
  let failed = 0;
  try {
    for (const [index, entry] of entries.entries()) {
      try {
        const take = await renderEntry(entry, card, flags, engine, encoder, signal);
        report(entry.id, take, `${index + 1}/${entries.length}`, flags.json ?? false);
      } catch (error) {
        if (exitCodeOf(error) === exitCodes.cancelled || !engine.alive) throw error;
        failed++;
        reportError(error, flags.json ?? false);
      }
    }
  } finally {
    await Promise.all([engine.stop(), encoder.stop()]);
  }
  if (failed > 0) process.exitCode = exitCodes.failure;
}

async function readEntries(flags: BatchFlags, model: string, card: ModelCard): Promise<Entry[]> {
  const text = await readFile(flags.batch === '-' ? '/dev/stdin' : flags.batch, 'utf8').catch((error: Error) => {
    throw new StudioError('bad-request', `${flags.batch}: ${error.message}`, { field: 'batch', cause: error });
  });
  const seen = new Set<string>();
  const entries: Entry[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    try {
      const { id, prompt, policy, ...rest } = parseRequest(batchLine, JSON.parse(line));
      if (seen.has(id)) throw new StudioError('bad-request', `id ${id} is used twice.`, { field: 'id' });
      seen.add(id);
      const base = await requestFromFlags(prompt, flags, card);
      const chosen = typeof policy === 'string' ? await policyFrom(policy, card) : policy;
      const asked = { model, ...base, ...withTextSeed(rest), ...(chosen === undefined ? {} : { policy: chosen }) };
      entries.push({ id, request: (await checkRequest(asked)).request });
    } catch (error) {
      const { message, field } = error as StudioError;
      throw new StudioError('bad-request', `${flags.batch}:${index + 1}: ${message}`, {
        field: field ?? 'batch',
        cause: error,
      });
    }
  }
  return entries;
}

/** Seeds are text, because JSON numbers lose digits; small ones may be written as numbers. */
function withTextSeed(line: Record<string, unknown>): Record<string, unknown> {
  return Number.isSafeInteger(line['seed']) ? { ...line, seed: String(line['seed']) } : line;
}

async function renderEntry(
  { id, request }: Entry,
  card: ModelCard,
  flags: BatchFlags,
  engine: EngineClient,
  encoder: EncodeClient,
  signal: AbortSignal,
): Promise<Take> {
  const { width, height, fps } = request;
  const format = formatOf(flags.format, undefined);
  const path = resolve(join(flags.outDir as string, id));
  const outcome = await renderClip({
    engine,
    request,
    card,
    signal,
    openOutput: (settings) =>
      flags.raw
        ? openRawFrames({ path: `${path}.rgb`, width, height, fps })
        : encoder.open({
            format,
            path: `${path}${fileEndings[format]}`,
            width,
            height,
            fps,
            rateFactor: rateFactorFrom(flags.crf, format),
            settings: JSON.stringify(settings),
          }),
  });
  if (outcome.state !== 'done') throw new StudioError('internal', 'A batch is never paused.');
  return outcome.take;
}

function report(id: string, take: Take, count: string, json: boolean): void {
  const { clip, latentHash, framesHash, timings } = take;
  if (json) console.log(JSON.stringify({ event: 'done', id, path: clip.path, latentHash, framesHash, timings }));
  else console.log(`${count}  ${id}  ${formatSeconds(timings.total)}  ${clip.path}`);
}
