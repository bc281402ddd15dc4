/**
 * Downloads of catalogue entries: one folder per entry, file after file, then the model is listed. What came stays, over restarts
 * and while a full disk is waited for.
 */
import { existsSync } from 'node:fs';
import { readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { StudioError, toErrorShape } from '../../../contract/errors.ts';
import type { CatalogueEntry, Download } from '../../../contract/models.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { makeFolder } from '../files/folders.ts';
import { freeBytes } from '../files/space.ts';
import type { Publish } from '../eventHub.ts';
import { newId } from '../library/ids.ts';
import type { Library } from '../library/libraryClient.ts';
import type { CatalogueSource } from './catalogue.ts';
import { fetchFile, type RetryPolicy } from './fetchFile.ts';
import { hashFile } from './hashFile.ts';
import type { InstalledModels } from './installedModels.ts';

export interface DownloadsOptions {
  library: Library;
  models: InstalledModels;
  catalogue: readonly CatalogueSource[];
  publish: Publish;
  fetch: typeof fetch;
  keepFreeBytes(): Promise<number>;
  retry?: Partial<RetryPolicy>;
  /** How often to look for space while waiting for it. */
  spaceCheckMs?: number;
}

interface Running {
  shown: Download;
  controller: AbortController;
  finished: Promise<void>;
  /** Looks at once at what is waited for. */
  wake(): void;
  /** An earlier run of the studio ended under it: nobody had paused it. */
  wasGoing: boolean;
  toldAt: number;
  rate: { at: number; bytes: number };
}

const tellEveryMs = 250;
const worthwhileBytes = 1024 * 1024;

export class Downloads {
  readonly #options: DownloadsOptions;
  readonly #known = new Map<string, Running>();

  constructor(options: DownloadsOptions) {
    this.#options = options;
  }

  /** Downloads that an earlier run of the studio left unfinished: paused until `goOnAsLeft`. */
  async findUnfinished(): Promise<void> {
    const folders = await readdir(this.#options.library.paths.downloads).catch((): string[] => []);
    for (const entry of this.#options.catalogue) {
      if (!folders.includes(entry.id) || this.#known.has(entry.id)) continue;
      const names = await readdir(this.#folder(entry.id)).catch((): string[] => []);
      const sizes = await Promise.all(
        names.filter((name) => !name.endsWith('.json')).map((name) => stat(join(this.#folder(entry.id), name))),
      );
      const receivedBytes = sizes.reduce((sum, { size }) => sum + size, 0);
      const running = newDownload(entry, { state: 'paused', receivedBytes });
      running.wasGoing = names.includes(goingFile);
      this.#known.set(entry.id, running);
    }
  }

  /** Goes on with what ran or waited when the studio ended; what somebody paused, and what failed, waits for them. */
  async goOnAsLeft(): Promise<void> {
    const left = this.#options.catalogue.filter(({ id }) => this.#known.get(id)?.wasGoing);
    if (left.length === 0) return;
    const installed = new Set((await this.#options.library.models.list()).map((model) => model.id));
    for (const entry of left) if (!installed.has(entry.id)) this.#begin(entry);
  }

  /** What came with the studio first: it needs no download. */
  async catalogue(): Promise<CatalogueEntry[]> {
    const models = await this.#options.library.models.list();
    const builtIn = models
      .filter((model) => model.origin === 'embedded')
      .map(({ id, name, licence, bytes }): CatalogueEntry => ({
        id,
        name,
        description: 'Comes with the studio: small and quick, for simple scenes.',
        licence: licence ?? 'GPL-3.0-or-later',
        licenceUrl: '',
        homepage: '',
        files: [],
        approximateBytes: bytes,
        installed: true,
        builtIn: true,
      }));
    const installed = new Set(models.map((model) => model.id));
    const offered = this.#options.catalogue.map(({ limits: _limits, defaults: _defaults, ...entry }) => ({
      ...entry,
      approximateBytes: totalBytes(entry),
      installed: installed.has(entry.id),
      builtIn: false,
    }));
    return [...builtIn, ...offered];
  }

  list(): Download[] {
    return [...this.#known.values()].map((running) => running.shown);
  }

  /** Starts, or goes on. Errors: not-found, conflict. */
  async start(catalogueId: string): Promise<Download> {
    const entry = this.#options.catalogue.find((candidate) => candidate.id === catalogueId);
    if (!entry) throw new StudioError('not-found', 'The catalogue has no such model.', { field: 'catalogueId' });
    const installed = await this.#options.library.models.list();
    if (installed.some((model) => model.id === catalogueId)) {
      throw new StudioError('conflict', `${entry.name} is installed already.`, { field: 'catalogueId' });
    }
    const earlier = this.#known.get(catalogueId);
    if (earlier?.shown.state === 'waiting-for-space') this.#goOn(earlier);
    if (earlier?.shown.state === 'running') return earlier.shown;
    return this.#begin(entry);
  }

  /** Errors: not-found, io. */
  async pause(id: string): Promise<Download> {
    const running = this.#get(id);
    await this.#stop(running);
    await this.#forgetGoing(running.shown.catalogueId);
    return running.shown;
  }

  async cancel(id: string): Promise<void> {
    const running = this.#get(id);
    await this.#stop(running);
    this.#known.delete(running.shown.catalogueId);
    await rm(this.#folder(running.shown.catalogueId), { recursive: true, force: true });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#known.values()].map((running) => this.#stop(running)));
  }

  #begin(entry: CatalogueSource): Download {
    const { id, receivedBytes } = this.#known.get(entry.id)?.shown ?? { id: newId('dwn'), receivedBytes: 0 };
    const running = newDownload(entry, { id, state: 'running', receivedBytes });
    this.#known.set(entry.id, running);
    running.finished = this.#run(entry, running);
    this.#tell(running, true);
    return running.shown;
  }

  /** After a restart it waits for somebody. */
  async #forgetGoing(id: string): Promise<void> {
    const path = join(this.#folder(id), goingFile);
    try {
      await rm(path, { force: true });
    } catch (error) {
      throw fileFailure(error, `Removing ${path}`);
    }
  }

  #get(id: string): Running {
    const running = [...this.#known.values()].find((candidate) => candidate.shown.id === id);
    if (!running) throw new StudioError('not-found', 'There is no such download.', { field: 'id' });
    return running;
  }

  async #stop(running: Running): Promise<void> {
    running.controller.abort();
    running.wake();
    await running.finished;
  }

  #folder(id: string): string {
    return join(this.#options.library.paths.downloads, id);
  }

  async #run(entry: CatalogueSource, running: Running): Promise<void> {
    try {
      await this.#fetchWithRoom(entry, running);
      this.#set(running, { state: 'done', file: null, bytesPerSecond: null });
      this.#known.delete(entry.id);
    } catch (error) {
      const shape = toErrorShape(error);
      const paused = shape.code === 'cancelled';
      if (!paused) await this.#forgetGoing(entry.id).catch(() => {}); // the first error counts
      this.#set(running, {
        state: paused ? 'paused' : 'failed',
        error: paused ? null : shape,
        bytesPerSecond: null,
        missingBytes: null,
      });
    }
    this.#tell(running, true);
  }

  /** Tries again and again: what does not fit waits. */
  async #fetchWithRoom(entry: CatalogueSource, running: Running): Promise<void> {
    for (;;) {
      try {
        return await this.#fetchAll(entry, running);
      } catch (error) {
        if (!(error instanceof StudioError) || error.code !== 'disk-full') throw error;
        await this.#waitForSpace(running);
      }
    }
  }

  /** Until the rest fits, or somebody wants it tried. Errors: cancelled, io. */
  async #waitForSpace(running: Running): Promise<void> {
    const { downloads } = this.#options.library.paths;
    const { name, totalBytes, receivedBytes } = running.shown;
    const restBytes = Math.max(0, (totalBytes ?? 0) - receivedBytes);
    const neededBytes = async () => restBytes + (await this.#options.keepFreeBytes());
    const free = await freeBytes(downloads);
    // Where the sizes say that there is room: as full as it is now it was too full.
    const enough = free < (await neededBytes()) ? 0 : free + worthwhileBytes;
    let told = 0;
    for (;;) {
      if (running.controller.signal.aborted) throw new StudioError('cancelled', 'The download was stopped.');
      const missingBytes = Math.max(await neededBytes(), enough) - (await freeBytes(downloads));
      if (missingBytes <= 0) return this.#goOn(running);
      const message = `The disk is too full for ${name}: another ${Math.ceil(missingBytes / 1e6)} MB must become free. What has come is kept, and the download goes on by itself.`;
      const error = { code: 'disk-full' as const, message };
      this.#set(running, { state: 'waiting-for-space', missingBytes, error, bytesPerSecond: null });
      if (missingBytes !== told) this.#tell(running, true);
      told = missingBytes;
      await this.#nextLook(running);
      if (running.shown.state !== 'waiting-for-space') return;
    }
  }

  #nextLook(running: Running): Promise<void> {
    if (running.controller.signal.aborted) return Promise.resolve(); // stopped before there was anything to wake
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#options.spaceCheckMs ?? 3000);
      running.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #goOn(running: Running): void {
    this.#set(running, { state: 'running', missingBytes: null, error: null });
    running.rate = { at: performance.now(), bytes: running.shown.receivedBytes };
    this.#tell(running, true);
    running.wake();
  }

  async #fetchAll(entry: CatalogueSource, running: Running): Promise<void> {
    const target = join(this.#options.library.paths.models, entry.id);
    if (!existsSync(join(target, 'model.json'))) await this.#fetchInto(target, entry, running);
    await this.#options.models.addDownloaded(target, entry.id, await readHashes(target), entry.licence);
  }

  /** Fills the model's folder: complete, looked at by the engine, or not there. */
  async #fetchInto(target: string, entry: CatalogueSource, running: Running): Promise<void> {
    const folder = this.#folder(entry.id);
    const hashes = await readHashes(folder);
    let before = 0;
    await makeFolder(folder);
    await write(join(folder, goingFile), '');
    for (const file of entry.files) {
      const path = join(folder, file.name);
      this.#set(running, { file: file.name });
      if (!existsSync(path)) {
        hashes[file.name] = await fetchFile({
          url: file.url,
          path,
          sha256: file.sha256,
          signal: running.controller.signal,
          // One that could not be finished is not begun.
          keepFreeBytes: (await this.#options.keepFreeBytes()) + bytesAfter(entry, file.name),
          fetch: this.#options.fetch,
          retry: this.#options.retry,
          onProgress: (received, total) => {
            this.#set(running, {
              receivedBytes: before + received,
              totalBytes: before + (total ?? file.approximateBytes) + bytesAfter(entry, file.name),
            });
            this.#tell(running, false);
          },
        });
      } else {
        // Moved into place before its hash could be noted.
        hashes[file.name] ??= await hashFile(path);
      }
      before += (await stat(path)).size;
      this.#set(running, { receivedBytes: before, totalBytes: before + bytesAfter(entry, file.name) });
      await write(join(folder, hashesFile), JSON.stringify(hashes));
    }
    const description = {
      format: 'vmoba-model/1',
      id: entry.id,
      name: entry.name,
      licence: entry.licence,
      files: Object.fromEntries(entry.files.map((file) => [file.role, file.name])),
      limits: entry.limits,
      defaults: entry.defaults,
    };
    try {
      await writeFile(join(folder, 'model.json'), JSON.stringify(description, null, 2));
      await this.#options.models.look(folder);
      await makeFolder(this.#options.library.paths.models);
      await rm(target, { recursive: true, force: true });
      await rename(folder, target);
      await rm(join(target, goingFile), { force: true });
    } catch (error) {
      throw fileFailure(error, `Writing ${target}`);
    }
  }

  #set(running: Running, changes: Partial<Download>): void {
    running.shown = { ...running.shown, ...changes };
  }

  #tell(running: Running, now: boolean): void {
    const at = performance.now();
    if (!now && at - running.toldAt < tellEveryMs) return;
    running.toldAt = at;
    const seconds = (at - running.rate.at) / 1000;
    if (running.shown.state === 'running' && seconds >= 1) {
      const bytesPerSecond = Math.max(0, (running.shown.receivedBytes - running.rate.bytes) / seconds);
      running.rate = { at, bytes: running.shown.receivedBytes };
      this.#set(running, { bytesPerSecond });
    }
    this.#options.publish('models.download', running.shown);
  }
}

type Files = Pick<CatalogueSource, 'files'>;

const totalBytes = ({ files }: Files) => files.reduce((sum, file) => sum + file.approximateBytes, 0);

/** Of the files that come after one, as the catalogue has them. */
const bytesAfter = ({ files }: Files, name: string) =>
  totalBytes({ files: files.slice(files.findIndex((file) => file.name === name) + 1) });

function newDownload(entry: CatalogueSource, shown: Partial<Download> & Pick<Download, 'state'>): Running {
  return {
    shown: {
      id: newId('dwn'),
      catalogueId: entry.id,
      name: entry.name,
      receivedBytes: 0,
      totalBytes: totalBytes(entry),
      file: null,
      bytesPerSecond: null,
      missingBytes: null,
      error: null,
      ...shown,
    },
    controller: new AbortController(),
    finished: Promise.resolve(),
    wake: () => {},
    wasGoing: false,
    toldAt: 0,
    rate: { at: performance.now(), bytes: shown.receivedBytes ?? 0 },
  };
}

/** In a download's folder from its start until somebody pauses it, it fails or it is done: what the studio's end leaves there. */
const goingFile = 'going';
const hashesFile = 'hashes.json';

async function readHashes(folder: string): Promise<Record<string, string>> {
  try {
    return JSON.parse(await readFile(join(folder, hashesFile), 'utf8')) as Record<string, string>;
  } catch {
    return {};
  }
}

async function write(path: string, content: string): Promise<void> {
  try {
    await writeFile(path, content);
  } catch (error) {
    throw fileFailure(error, `Writing ${path}`);
  }
}
