/** `vmoba-studio render`: a prompt, an interrupted render, or a list of prompts, to files. */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { StudioError } from '../../contract/errors.ts';
import { EngineClient } from '../engine/engineClient.ts';
import { EncodeClient } from '../studio/encode/encodeClient.ts';
import { clipFormats, fileEndings } from '../studio/encode/formats.ts';
import { checkRequest, checkWritable } from '../studio/render/checkRequest.ts';
import { readModelCard } from '../studio/render/modelCard.ts';
import { renderClip } from '../studio/render/renderClip.ts';
import { renderBatch } from './batch.ts';
import { abortOnSignals } from './engine.ts';
import { checkpointPath, type Job, jobFolder, nameFromPrompt, readJob, removeJob, writeJob } from './job.ts';
import { jsonPrinter, textPrinter } from './progress.ts';
import { formatOf, rateFactorFrom, type RenderFlags, requestFromFlags, secondsFrom } from './renderOptions.ts';
import { embeddedModel } from '../host/resources.ts';

interface Flags extends RenderFlags {
  out?: string;
  format?: string;
  crf?: string;
  resume?: string;
  checkpointEvery: string;
  batch?: string;
  outDir?: string;
  raw?: boolean;
  json?: boolean;
}

export function renderCommand(): Command {
  return new Command('render')
    .description('Render a prompt to a video file')
    .argument('[prompt]')
    .option('--model <folder>', 'folder with model.json', embeddedModel())
    .option('--out <file>', 'where the clip goes (default: renders/<prompt>-<seed>)')
    .option('--format <format>', `${clipFormats.join(', ')} (default: by the ending of --out, or mp4)`)
    .option('--crf <n>', 'constant rate factor of the video encoder; lower is better and larger')
    .option('--negative <prompt>', 'what the clip should not show')
    .option('--size <WxH>', 'pixels')
    .option('--frames <n>', '4k+1')
    .option('--fps <n>', 'frames per second of the file')
    .option('--steps <n>', 'denoising steps')
    .option('--guidance <n>', 'guidance scale; 1 renders unguided and twice as fast')
    .option('--shift <n>', 'timestep shift')
    .option('--scheduler <name>', 'unipc, dpmpp or euler')
    .option('--seed <n>', 'unsigned 64-bit (default: random)')
    .option(
      '--policy <policy>',
      'attention: model, dense, vmoba-training-free, vmoba-trained, JSON, or a file with JSON',
    )
    .option('--precision <p>', 'auto, f32 or bf16')
    .option('--device <id>', 'see vmoba-studio devices')
    .option('--threads <n>', '0 = all cores')
    .option('--memory-limit <size>', 'refuse a render that needs more, e.g. 12GB')
    .option('--run-anyway', 'render although the plan exceeds the limit')
    .option('--resume <job>', 'continue an interrupted render: its job folder or checkpoint')
    .option('--checkpoint-every <seconds>', 'shortest time between two checkpoints', '5')
    .option(
      '--batch <file>',
      'render every line of a JSONL file: {"id", "prompt", …}; see the documentation of each option',
    )
    .option('--out-dir <folder>', 'where the clips of a batch go')
    .option('--raw', 'batch: write RGB24 frames as they are, DIR/<id>.rgb')
    .option('--json', 'print JSON lines')
    .action(async (prompt: string | undefined, flags: Flags) => {
      if (flags.batch !== undefined) return renderBatch({ ...flags, batch: flags.batch });
      const job = flags.resume === undefined ? await newJob(prompt, flags) : await readJob(flags.resume);
      await renderJob(job.folder, job.job, flags);
    });
}

async function newJob(prompt: string | undefined, flags: Flags): Promise<{ folder: string; job: Job }> {
  if (prompt === undefined)
    throw new StudioError('bad-request', 'Say what the clip shows: vmoba-studio render "a red ball …".', {
      field: 'prompt',
    });
  const card = await readModelCard(flags.model);
  const { request } = await checkRequest(await requestFromFlags(prompt, flags, card));
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

async function renderJob(folder: string, job: Job, flags: Flags): Promise<void> {
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
