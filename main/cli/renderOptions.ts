/** From command-line options to a render request. What an option does not say, the model's own defaults do. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type AttentionPolicy, policyPresets } from '../../contract/attentionPolicy.ts';
import { StudioError } from '../../contract/errors.ts';
import { embeddedModel } from '../host/resources.ts';
import { type ClipFormat, clipFormats, fileEndings, rateFactors } from '../studio/encode/formats.ts';
import type { ModelCard } from '../studio/render/modelCard.ts';

export interface RenderFlags {
  model?: string;
  negative?: string;
  size?: string;
  frames?: string;
  fps?: string;
  steps?: string;
  guidance?: string;
  shift?: string;
  scheduler?: string;
  seed?: string;
  policy?: string;
  precision?: string;
  device?: string;
  threads?: string;
  memoryLimit?: string;
  runAnyway?: boolean;
}

/** Whether --model names a folder; otherwise it is the id of an installed model. */
export const namesFolder = (model: string): boolean => /[\\/]/.test(model) || model === '.';

/** The folder that --model means outside of a library. */
export const modelFolder = (model: string | undefined): string => resolve(model ?? embeddedModel());

/** What a model is best run with: of its folder's card, or of an installed model. */
export type ModelDefaults = Pick<ModelCard, 'defaults' | 'policy'>;

/** An unchecked request, its model left to the caller: `checkRequest`, or the studio, says what is wrong with it. */
export async function requestFromFlags(
  prompt: string,
  flags: RenderFlags,
  card: ModelDefaults,
): Promise<Record<string, unknown>> {
  const { defaults } = card;
  const [width, height] = flags.size === undefined ? [defaults.width, defaults.height] : parseSize(flags.size);
  return withoutUndefined({
    prompt,
    negativePrompt: flags.negative ?? defaults.negativePrompt ?? '',
    width,
    height,
    frames: number(flags.frames) ?? defaults.frames,
    fps: number(flags.fps) ?? defaults.fps ?? 16,
    steps: number(flags.steps) ?? defaults.steps,
    guidanceScale: number(flags.guidance) ?? defaults.guidanceScale ?? 5,
    shift: number(flags.shift) ?? defaults.shift ?? 5,
    scheduler: flags.scheduler ?? defaults.scheduler ?? 'unipc',
    seed: flags.seed ?? randomSeed(),
    policy: await policyFrom(flags.policy, card),
    precision: flags.precision,
    device: flags.device,
    threads: number(flags.threads),
    memoryLimitBytes: flags.memoryLimit === undefined ? undefined : parseBytes(flags.memoryLimit),
    runAnyway: flags.runAnyway,
  });
}

/** A preset's name, JSON, or a file that holds JSON; the model's own policy when nothing is said. */
export async function policyFrom(text: string | undefined, card: ModelDefaults): Promise<unknown> {
  if (text === undefined || text === 'model') return card.policy ?? policyPresets.dense;
  if (text in policyPresets) return policyPresets[text as keyof typeof policyPresets] satisfies AttentionPolicy;
  const json = text.trimStart().startsWith('{') ? text : await readFile(text, 'utf8').catch(() => undefined);
  if (json === undefined) {
    const names = ['model', ...Object.keys(policyPresets)].join(', ');
    throw new StudioError('bad-request', `'${text}' is no attention policy: use ${names}, JSON, or a file with JSON.`, {
      field: 'policy',
    });
  }
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new StudioError('bad-request', `policy is not valid JSON: ${(error as Error).message}`, {
      field: 'policy',
      cause: error,
    });
  }
}

/** The format that was asked for, or that the file name's ending means. */
export function formatOf(format: string | undefined, path: string | undefined): ClipFormat {
  if (format !== undefined) {
    if ((clipFormats as readonly string[]).includes(format)) return format as ClipFormat;
    throw new StudioError('bad-request', `format must be one of ${clipFormats.join(', ')}, not '${format}'.`, {
      field: 'format',
    });
  }
  const known = clipFormats.find((name) => fileEndings[name] !== '' && path?.endsWith(fileEndings[name]));
  return known ?? 'mp4';
}

/** The encoder's rate factor. Errors: bad-request with field `crf`. */
export function rateFactorFrom(text: string | undefined, format: ClipFormat): number | undefined {
  if (text === undefined) return undefined;
  const range = rateFactors[format];
  if (!range) throw new StudioError('bad-request', `${format} has no rate factor to choose.`, { field: 'crf' });
  const value = number(text) as number;
  if (value >= range.best && value <= range.worst) return value;
  throw new StudioError('bad-request', `crf must be ${range.best} to ${range.worst} for ${format}, not '${text}'.`, {
    field: 'crf',
  });
}

/** A duration in seconds. Errors: bad-request with the field. */
export function secondsFrom(text: string, field: string): number {
  const value = number(text) as number;
  if (value >= 0) return value;
  throw new StudioError('bad-request', `${field} must be a number of seconds, not '${text}'.`, { field });
}

function parseSize(text: string): [number, number] {
  const [, width, height] = /^(\d{1,5})[x×](\d{1,5})$/i.exec(text) ?? [];
  if (width === undefined || height === undefined) {
    throw new StudioError('bad-request', `size must look like 832x480, not '${text}'.`, { field: 'size' });
  }
  return [Number(width), Number(height)];
}

function parseBytes(text: string): number {
  const [, value, unit] = /^(\d+(?:\.\d+)?)\s*([kmgt]?)b?$/i.exec(text) ?? [];
  if (value === undefined) {
    throw new StudioError('bad-request', `memory limit must look like 12GB, not '${text}'.`, {
      field: 'memoryLimitBytes',
    });
  }
  return Math.round(Number(value) * 1000 ** ['', 'k', 'm', 'g', 't'].indexOf((unit ?? '').toLowerCase()));
}

/** Text that is no number becomes NaN, which the request's schema refuses with the field's name. */
const number = (text: string | undefined) =>
  text === undefined ? undefined : text.trim() === '' ? Number.NaN : Number(text);

export const randomSeed = () => BigInt(`0x${randomBytes(8).toString('hex')}`).toString();

function withoutUndefined(value: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined));
}
