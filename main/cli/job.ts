/**
 * A render that can be resumed from the command line: a folder beside the clip with the request and the checkpoint. It goes
 * away when the clip is complete.
 */
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import { StudioError } from '../../contract/errors.ts';
import { parseRequest } from '../../contract/parse.ts';
import { renderRequest } from '../../contract/renderRequest.ts';
import { fileFailure } from '../studio/files/fileFailure.ts';
import { makeFolder } from '../studio/files/folders.ts';
import { clipFormats } from '../studio/encode/formats.ts';

const job = z.strictObject({
  format: z.literal('vmoba-job/1'),
  request: renderRequest,
  output: z.strictObject({
    path: z.string().min(1),
    format: z.enum(clipFormats),
    rateFactor: z.number().optional(),
  }),
});

export type Job = z.infer<typeof job>;

export const jobFolder = (output: string) => `${output}.job`;
export const checkpointPath = (folder: string) => join(folder, 'checkpoint.safetensors');

/** Errors: disk-full, io. */
export async function writeJob(folder: string, value: Job): Promise<void> {
  try {
    await makeFolder(folder);
    await writeFile(join(folder, 'job.json'), `${JSON.stringify(value, null, 2)}\n`);
  } catch (error) {
    await removeJob(folder);
    throw fileFailure(error, `Writing ${folder}`);
  }
}

/** Reads a job from its folder or from the checkpoint in it. Errors: bad-request with field `resume`. */
export async function readJob(path: string): Promise<{ folder: string; job: Job }> {
  const folder = (await stat(path).catch(() => undefined))?.isDirectory() ? resolve(path) : dirname(resolve(path));
  const file = join(folder, 'job.json');
  const text = await readFile(file, 'utf8').catch((error: Error) => {
    throw new StudioError('bad-request', `${path} is no render to resume: ${error.message}`, {
      field: 'resume',
      cause: error,
    });
  });
  try {
    return { folder, job: parseRequest(job, JSON.parse(text)) };
  } catch (error) {
    throw new StudioError('bad-request', `${file}: ${(error as Error).message}`, { field: 'resume', cause: error });
  }
}

export async function removeJob(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
}

/** A file name from a prompt: readable, short, safe on every system. */
export function nameFromPrompt(prompt: string, seed: string): string {
  const words = prompt
    .normalize('NFKD')
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 48)
    .replace(/-+$/, '');
  return basename(`${words.toLowerCase() || 'clip'}-${seed}`);
}
