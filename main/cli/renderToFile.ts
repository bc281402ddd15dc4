/** A render straight to a file, beside any library: from a model folder, or from the job of an interrupted one. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { StudioError } from '../../contract/errors.ts';
import { EngineClient } from '../engine/engineClient.ts';
import { EncodeClient } from '../studio/encode/encodeClient.ts';
import { fileEndings } from '../studio/encode/formats.ts';
import { checkRequest, checkWritable } from '../studio/render/checkRequest.ts';
import { readModelCard } from '../studio/render/modelCard.ts';
import { renderClip } from '../studio/render/renderClip.ts';
import { abortOnSignals } from './engine.ts';
import { checkpointPath, type Job, jobFolder, nameFromPrompt, readJob, removeJob, writeJob } from './job.ts';
import { jsonPrinter, textPrinter } from './progress.ts';
import {
  formatOf,
  rateFactorFrom,
  type RenderFlags,
  modelFolder,
  requestFromFlags,
  secondsFrom,
} from './renderOptions.ts';

export interface FileFlags extends RenderFlags {
  out?: string;
  format?: string;
  crf?: string;
  resume?: string;
  checkpointEvery: string;
  json?: boolean;
}

export async function renderToFile(prompt: string | undefined, flags: FileFlags): Promise<void> {
  const { folder, job } = flags.resume === undefined ? await newJob(prompt, flags) : await readJob(flags.resume);
  await renderJob(folder, job, flags);
}

async function newJob(prompt: string | undefined, flags: FileFlags): Promise<{ folder: string; job: Job }> {
  if (prompt === undefined)
    throw new StudioError('bad-request', 'Say what the clip shows: vmoba-studio render "a red ball …".', {
      field: 'prompt',
    });
  const model = modelFolder(flags.model);
  const card = await readModelCard(model);
  const { request } = await checkRequest({ model, ...(await requestFromFlags(prompt, flags, card)) });
  const format = formatOf(flags.format, flags.out);
  const path = resolve(flags.out ?? `renders/${nameFromPrompt(prompt, request.seed)}${fileEndings[format]}`);
  await checkWritable(path);
  const rateFactor = rateFactorFrom(flags.crf, format);
  const job: Job = { format: 'vmoba-job/1', request, output: { path, format, rateFactor } };
  const folder = jobFolder(path);
  // A checkpoint of an earlier render of that name belongs to other settings.
  await removeJob(folder);
  await writeJob(folder, job);
  return { folder, job };
}

async function renderJob(folder: string, job: Job, flags: FileFlags): Promise<void> {
  const { request, card } = await checkRequest(job.request);
  const { output } = job;
  await checkWritable(output.path);
  const checkpoint = {
    path: checkpointPath(folder),
    everyMs: 1000 * secondsFrom(flags.checkpointEvery, 'checkpointEvery'),
  };
  const printer = flags.json ? jsonPrinter() : textPrinter(request.steps);
  const engine = EngineClient.start();
  const encoder = new EncodeClient();
  encoder.start();
  try {
    const outcome = await renderClip({
      engine,
      request,
      card,
      checkpoint,
      signal: abortOnSignals(),
      onEvent: (event) => printer.event(event),
      openOutput: (settings) => encoder.open({ ...output, ...sizeOf(request), settings: JSON.stringify(settings) }),
    });
    if (outcome.state !== 'done') return;
    printer.done(outcome.take);
    await removeJob(folder);
  } catch (error) {
    await tellHowToResume(folder, checkpoint.path, flags.json ?? false);
    throw error;
  } finally {
    await Promise.all([engine.stop(), encoder.stop()]);
  }
}

const sizeOf = ({ width, height, fps }: Job['request']) => ({ width, height, fps });

/** After a failure: the way on where something is kept, and nothing left where nothing is. */
async function tellHowToResume(folder: string, checkpoint: string, json: boolean): Promise<void> {
  if (!existsSync(checkpoint)) return removeJob(folder);
  if (json) console.log(JSON.stringify({ event: 'resumable', job: folder }));
  else {
    process.stderr.write(
      `\nThe checkpoint is kept. Continue with:\n  vmoba-studio render --resume ${JSON.stringify(folder)}\n`,
    );
  }
}
