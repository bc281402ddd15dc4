/**
 * At start, and after a backup was restored: the files and the rows are made to agree. Nothing that could be someone's work is
 * deleted: only what a row says is to go, temporary files, and files of renders that will be made again.
 */
import { existsSync } from 'node:fs';
import { readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { parseClipSettings } from '../../contract/clipSettings.ts';
import type { EncodeClient } from './encode/encodeClient.ts';
import { makeFolder } from './files/folders.ts';
import type { ClipFormat } from './encode/formats.ts';
import type { Library } from './library/libraryClient.ts';
import { renderOfFile } from './queue/takeFiles.ts';

export interface ReconcileOptions {
  library: Library;
  encoder: EncodeClient;
  /** Take in clips that the database does not know: after a backup was restored. */
  adopt: boolean;
  modelByFingerprint(fingerprint: string): Promise<string | null>;
}

/** Returns what was found and mended, in words. Errors: io, disk-full. */
export async function reconcile(options: ReconcileOptions): Promise<string[]> {
  const { library } = options;
  const { paths } = library;
  const notices: string[] = [];
  for (const folder of [paths.takes, paths.work, paths.exports, paths.models, paths.downloads]) {
    await makeFolder(folder);
  }
  const interrupted = await library.renders.requeueInterrupted();
  if (interrupted.length > 0) notices.push('A render was interrupted: it goes on from its checkpoint.');
  await deletePending(library);
  await rm(paths.uploads, { recursive: true, force: true });
  for (const folder of [paths.folder, paths.takes, paths.exports, paths.models, paths.backups])
    await removeTemporaries(folder);

  const unfinished = new Set(await library.renders.unfinished());
  for (const name of await names(paths.work)) {
    if (!unfinished.has(name)) await rm(join(paths.work, name), { recursive: true, force: true });
  }

  const takes = await library.takes.allFiles();
  let missing = 0;
  for (const take of takes) {
    const exists = existsSync(join(paths.folder, take.file));
    if (!exists) missing++;
    if (exists !== take.exists) await library.takes.setFileExists(take.id, exists);
  }
  if (missing > 0) notices.push(`${missing} ${missing === 1 ? 'clip is' : 'clips are'} missing from the takes folder.`);

  const known = new Set(takes.flatMap(({ file, poster, maps }) => [file, poster, maps]));
  const strangers = (await names(paths.takes)).filter((name) => !known.has(`takes/${name}`));
  const adopted = await settleStrangers(options, strangers, unfinished);
  if (adopted > 0)
    notices.push(
      `${adopted} ${adopted === 1 ? 'clip was found again by its file' : 'clips were found again by their files'}.`,
    );
  return notices;
}

/** Deletes files whose rows are gone; those that cannot be deleted now are tried again at the next start. */
export async function deletePending(library: Library): Promise<void> {
  const gone: string[] = [];
  for (const path of await library.takes.pendingDeletions()) {
    await rm(join(library.paths.folder, path), { recursive: true, force: true }).then(
      () => gone.push(path),
      () => {}, // held open by a player, perhaps
    );
  }
  if (gone.length > 0) await library.takes.forgetDeletions(gone);
}

async function settleStrangers(
  options: ReconcileOptions,
  strangers: string[],
  unfinished: ReadonlySet<string>,
): Promise<number> {
  const { library } = options;
  let adopted = 0;
  const rest: string[] = [];
  for (const name of strangers) {
    const renderId = renderOfFile(name);
    const path = join(library.paths.takes, name);
    if (renderId === null) continue;
    // A clip that was finished but not yet recorded: its render ends again, to the same clip.
    if (unfinished.has(renderId) && !options.adopt) await rm(path, { recursive: true, force: true });
    else if (/\.(mp4|webm|mov|gif)$/.test(name) && (options.adopt || !(await library.renders.exists(renderId)))) {
      if (await adoptClip(options, name, renderId)) adopted++;
    } else rest.push(name);
  }
  // Pictures and maps of clips that are neither known nor adopted.
  const now = new Set((await library.takes.allFiles()).flatMap(({ poster, maps }) => [poster, maps]));
  for (const name of rest) {
    if (!now.has(`takes/${name}`)) await rm(join(library.paths.takes, name), { recursive: true, force: true });
  }
  return adopted;
}

async function adoptClip(options: ReconcileOptions, name: string, renderId: string): Promise<boolean> {
  const { library, encoder } = options;
  const path = join(library.paths.takes, name);
  const settings = parseClipSettings(await encoder.readComment(path).catch(() => null));
  if (!settings) return false;
  const { size, mtimeMs } = await stat(path);
  const stem = name.replace(/\.[^.]+$/, '');
  const beside = (ending: string) =>
    existsSync(join(library.paths.takes, stem + ending)) ? `takes/${stem}${ending}` : null;
  const { request } = settings;
  const project = await library.projects.chosen(undefined);
  await library.takes.adopt({
    renderId,
    projectId: project.id,
    settings: {
      ...request,
      model: (await options.modelByFingerprint(settings.model.fingerprint)) ?? safeModelId(settings.model.id),
    },
    createdAt: Math.round(mtimeMs),
    modelName: settings.model.name,
    file: `takes/${name}`,
    poster: beside('.png'),
    maps: beside('.maps'),
    clip: {
      format: formatOfEnding(name) as Exclude<ClipFormat, 'png'>,
      width: request.width,
      height: request.height,
      frames: request.frames,
      fps: request.fps,
      bytes: size,
    },
    latentHash: settings.latentHash,
    framesHash: '',
    bitIdentical: true,
    differenceReason: null,
    renderSeconds: 0,
    peakBytes: 0,
    meanDensity: null,
    speedup: { measured: null, against: null, denseStepSeconds: null, sparseStepSeconds: null, arithmetic: null },
  });
  return true;
}

const formatOfEnding = (name: string): ClipFormat =>
  name.endsWith('.webm') ? 'webm-vp9' : name.endsWith('.mov') ? 'mov-prores' : name.endsWith('.gif') ? 'gif' : 'mp4';

const safeModelId = (id: string) =>
  id
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+/, '')
    .slice(0, 100) || 'unknown';

async function removeTemporaries(folder: string): Promise<void> {
  for (const name of await names(folder)) {
    if (name.startsWith('.') && name.endsWith('.part')) await rm(join(folder, name), { recursive: true, force: true });
    else if (/\.[0-9a-f]{8}\.part$/.test(name)) await rm(join(folder, name), { recursive: true, force: true });
  }
}

const names = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);
