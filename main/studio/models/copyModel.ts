/** Copies a model into the library: whole, under its name, or not at all. */
import { randomBytes } from 'node:crypto';
import { copyFile, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { StudioError } from '../../../contract/errors.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { makeFolder } from '../files/folders.ts';
import { freeBytes } from '../files/space.ts';
import { moveFolderIntoPlace } from '../files/temporary.ts';
import type { ModelCard } from '../render/modelCard.ts';
import { filesOf, slug } from './modelFiles.ts';

/** Returns the new folder. Errors: disk-full (asked beforehand), io, bad-model-file. */
export async function copyModel(card: ModelCard, models: string): Promise<string> {
  const files = filesOf(card);
  let bytes = 0;
  for (const { path } of files) {
    const info = await stat(path).catch(() => undefined);
    if (!info) throw new StudioError('bad-model-file', `${path}: no such file`, { field: 'path' });
    bytes += info.size;
  }
  const name = freeName(models, slug(card.id));
  const temporary = join(models, `.${name}.${randomBytes(4).toString('hex')}.part`);
  try {
    await makeFolder(temporary);
    const free = await freeBytes(models);
    if (free < bytes) {
      throw new StudioError(
        'disk-full',
        `Copying this model needs ${Math.ceil(bytes / 1e6)} MB; ${Math.floor(free / 1e6)} MB are free.`,
      );
    }
    const names = new Map<string, string>();
    for (const { name: file, path } of files) {
      if (names.has(file)) continue;
      const own = freeName(temporary, basename(path));
      await copyFile(path, join(temporary, own));
      names.set(file, own);
    }
    const description = JSON.parse(await readFile(join(card.folder, 'model.json'), 'utf8')) as {
      files: Record<string, string>;
    };
    for (const [role, file] of Object.entries(description.files)) description.files[role] = names.get(file) ?? file;
    await writeFile(join(temporary, 'model.json'), JSON.stringify(description, null, 2));
    await moveFolderIntoPlace(temporary, join(models, name));
    return join(models, name);
  } catch (error) {
    // Its name was free: what has it now is this copy.
    await rm(join(models, name), { recursive: true, force: true });
    throw fileFailure(error, 'Copying the model');
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

function freeName(folder: string, wanted: string): string {
  let name = wanted;
  for (let number = 2; existsSync(join(folder, name)); number++) name = `${number}-${wanted}`;
  return name;
}
