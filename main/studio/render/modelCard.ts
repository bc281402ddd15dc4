/** model.json: what a model folder holds, what it was made for, and how it is best run. The weights are not opened here. */
import { createHash } from 'node:crypto';
import { open, readFile, stat } from 'node:fs/promises';
import { isAbsolute, join } from 'node:path';
import { z } from 'zod';
import { attentionPolicy } from '../../../contract/attentionPolicy.ts';
import { StudioError } from '../../../contract/errors.ts';
import { modelWords } from '../../../contract/models.ts';
import { modelLimits } from '../../../contract/renderRequest.ts';

const fileName = z.string().min(1).max(4096);

const modelDescription = z.object({
  format: z.literal('vmoba-model/1'),
  id: z.string().min(1).max(200),
  name: z.string().min(1).max(200).optional(),
  files: z.object({ dit: fileName, vae: fileName, textEncoder: fileName, tokenizer: fileName }),
  limits: modelLimits.default({ sideMultiple: 16 }),
  defaults: z
    .object({
      width: z.int(),
      height: z.int(),
      frames: z.int(),
      fps: z.number(),
      steps: z.int(),
      guidanceScale: z.number(),
      shift: z.number(),
      scheduler: z.enum(['unipc', 'dpmpp', 'euler']),
      negativePrompt: z.string(),
    })
    .partial()
    .default({}),
  /** The policy a model was trained with; it wins over every preset. */
  policy: attentionPolicy.nullish(),
  // Only shown: what does not fit is no reason to refuse a model.
  licence: z.string().nullable().catch(null),
  randomWeights: z.boolean().catch(false),
  knows: modelWords.catch({}),
});

export interface ModelCard extends z.infer<typeof modelDescription> {
  /** The folder that holds model.json. */
  folder: string;
  name: string;
}

const largestDescriptionBytes = 4 * 1024 * 1024;

/** Reads a model folder (or its model.json). Errors: bad-model-file "<file>: <member>: <reason>". */
export async function readModelCard(model: string): Promise<ModelCard> {
  const info = await stat(model).catch(() => undefined);
  const folder = info?.isDirectory() ? model : join(model, '..');
  const file = info?.isDirectory() ? join(model, 'model.json') : model;
  const bad = (reason: string) => new StudioError('bad-model-file', `${file}: ${reason}`, { field: 'model' });
  const facts = await stat(file).catch(() => undefined);
  if (!facts?.isFile()) throw bad('no such file: a model is a folder with a model.json');
  if (facts.size > largestDescriptionBytes) throw bad(`larger than ${largestDescriptionBytes} bytes`);
  let json: unknown;
  try {
    json = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw bad(`not valid JSON: ${(error as Error).message}`);
  }
  const parsed = modelDescription.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw bad(`${issue?.path.join('.') || 'model'}: ${issue?.message ?? 'not valid'}`);
  }
  return { ...parsed.data, name: parsed.data.name ?? parsed.data.id, folder };
}

const sampleBytes = 1024 * 1024;

/**
 * Identifies a model's files in milliseconds, however large they are: a hash over model.json and, for each file, its size and
 * its first and last megabyte (names, shapes and types of all tensors lie in the first).
 */
export async function modelFingerprint(card: ModelCard): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([card.id, card.files]));
  for (const name of Object.values(card.files)) {
    const path = isAbsolute(name) ? name : join(card.folder, name);
    const bad = (reason: string, cause?: unknown) =>
      new StudioError('bad-model-file', `${path}: ${reason}`, { field: 'model', cause });
    // Opening a named pipe would wait for whoever writes to it.
    if ((await stat(path).catch(() => undefined))?.isFIFO()) throw bad('is a named pipe, not a file');
    const file = await open(path, 'r').catch((error: Error) => {
      throw bad(error.message, error);
    });
    try {
      const { size } = await file.stat();
      hash.update(`${size};`);
      const buffer = Buffer.alloc(Math.min(size, sampleBytes));
      for (const position of [0, Math.max(0, size - buffer.length)]) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
        hash.update(buffer.subarray(0, bytesRead));
      }
    } finally {
      await file.close();
    }
  }
  return hash.digest('hex').slice(0, 32);
}
