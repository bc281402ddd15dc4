/**
 * Makes a model.json for a folder of weight files as people have them: a transformer, an autoencoder, a text encoder and its
 * tokeniser, under any names. The files stay where they are; the description lies in the library.
 */
import { readdir, rm, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { StudioError } from '../../../contract/errors.ts';
import type { ModelInspection } from '../../engine/binding.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { makeFolder } from '../files/folders.ts';
import type { EngineHost } from '../engineHost.ts';
import { wanDefaults, wanLimits } from './catalogue.ts';
import { slug } from './modelFiles.ts';

const depth = 3;
const mostFiles = 2000;

const roles = { 'wan-dit': 'dit', 'wan-vae': 'vae', umt5: 'textEncoder' } as const;
const missing = {
  dit: 'a Wan transformer (safetensors)',
  vae: 'a Wan autoencoder (safetensors)',
  textEncoder: 'a umT5 text encoder (safetensors)',
  tokenizer: 'its tokeniser (spiece.model)',
};

/** Returns the folder of the description. Errors: bad-model-file that says what is missing or doubtful. */
export async function describeWeights(
  folder: string,
  name: string | undefined,
  models: string,
  engines: EngineHost,
): Promise<string> {
  const paths = await listFiles(folder, depth);
  const files: Partial<Record<keyof typeof missing, string>> = {};
  const sharded = new Set(paths.filter((path) => path.endsWith('.index.json')).map((path) => join(path, '..')));
  for (const path of paths) {
    // A sharded checkpoint is known by its index; its parts are not looked at one by one.
    const candidate = path.endsWith('.index.json') || (path.endsWith('.safetensors') && !sharded.has(join(path, '..')));
    if (candidate) {
      const kind = await kindOf(path, engines);
      if (kind === 'model' || kind === 'unknown') continue;
      const role = roles[kind];
      if (files[role] !== undefined) {
        throw new StudioError(
          'bad-model-file',
          `${folder}: ${basename(files[role])} and ${basename(path)} could both be ${missing[role]}: keep one model in a folder.`,
          { field: 'path' },
        );
      }
      files[role] = path;
    } else if (/(^|[/\\])spiece\.model$|(^|[/\\])sentencepiece\.bpe\.model$|\.spm$/.test(path))
      files.tokenizer ??= path;
  }
  const lacking = (Object.keys(missing) as (keyof typeof missing)[]).filter((role) => files[role] === undefined);
  if (lacking.length > 0) {
    const pickled = paths.some((path) => /\.(pth|pt|ckpt|bin)$/.test(path))
      ? ' Files in pickle formats (.pth, .pt, .ckpt, .bin) are never opened: use safetensors versions.'
      : '';
    throw new StudioError(
      'bad-model-file',
      `${folder}: found no ${lacking.map((role) => missing[role]).join(', no ')}.${pickled}`,
      { field: 'path' },
    );
  }
  const title = name ?? basename(folder);
  let target = join(models, slug(title));
  for (let number = 2; existsSync(target); number++) target = join(models, `${slug(title)}-${number}`);
  const description = {
    format: 'vmoba-model/1',
    id: slug(title),
    name: title,
    files,
    limits: wanLimits,
    defaults: wanDefaults,
  };
  try {
    await makeFolder(target);
    await writeFile(join(target, 'model.json'), JSON.stringify(description, null, 2));
  } catch (error) {
    await rm(target, { recursive: true, force: true });
    throw fileFailure(error, `Writing ${target}`);
  }
  return target;
}

async function kindOf(path: string, engines: EngineHost): Promise<ModelInspection['kind']> {
  try {
    return (await engines.ask((engine) => engine.inspect(path))).kind;
  } catch (error) {
    if (error instanceof StudioError && error.code === 'bad-model-file') return 'unknown';
    throw error;
  }
}

async function listFiles(folder: string, levels: number): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    const reason =
      error.code === 'ENOENT'
        ? 'there is no such folder on the machine that the studio runs on.'
        : error.code === 'EACCES'
          ? 'the studio may not read this folder: change its permissions, or copy it elsewhere.'
          : error.message;
    throw new StudioError('bad-model-file', `${folder}: ${reason}`, { field: 'path', cause: error });
  });
  const paths: string[] = [];
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isFile()) paths.push(path);
    else if (entry.isDirectory() && levels > 1) paths.push(...(await listFiles(path, levels - 1)));
    if (paths.length > mostFiles) {
      throw new StudioError('bad-model-file', `${folder}: holds too many files to be a model's folder.`, {
        field: 'path',
      });
    }
  }
  return paths.sort();
}
