/** The models a person has: found by id, checked against what was recorded, added and removed. */
import { existsSync } from 'node:fs';
import { rm, stat } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { StudioError } from '../../../contract/errors.ts';
import type { Model } from '../../../contract/models.ts';
import { attentionPolicy } from '../../../contract/attentionPolicy.ts';
import { modelLimits } from '../../../contract/renderRequest.ts';
import type { EngineHost } from '../engineHost.ts';
import type { Publish } from '../eventHub.ts';
import type { Library } from '../library/libraryClient.ts';
import type { StoredModel } from '../library/tables/models.ts';
import { type ModelCard, readModelCard } from '../render/modelCard.ts';
import { copyModel } from './copyModel.ts';
import { describeWeights } from './describeWeights.ts';
import type { Fingerprints } from './fingerprints.ts';
import { hashFile } from './hashFile.ts';
import { filesOf, slug } from './modelFiles.ts';

export interface InstalledModelsOptions {
  library: Library;
  engines: EngineHost;
  publish: Publish;
  fingerprints: Fingerprints;
  /** Called when the set of models has changed, before it is told. */
  onChange(): void;
}

type Verified = { name: string; bytes: number; sha256: string; state: 'same' | 'recorded' | 'different' | 'missing' };

export class InstalledModels {
  readonly #options: InstalledModelsOptions;

  constructor(options: InstalledModelsOptions) {
    this.#options = options;
  }

  async list(): Promise<Model[]> {
    return Promise.all((await this.#options.library.models.list()).map((model) => this.#shown(model)));
  }

  /** The card of a model whose files are there. Errors: not-found, bad-model-file. */
  async card(id: string): Promise<ModelCard> {
    return readModelCard((await this.#options.library.models.get(id)).folder);
  }

  /**
   * Makes sure that the model which comes with the studio is listed, wherever the studio lies today. Returns what is wrong with
   * it, in words: the studio works without it. Errors: those of the library.
   */
  async embed(folder: string): Promise<string[]> {
    const { library, fingerprints } = this.#options;
    if (!existsSync(join(folder, 'model.json'))) return [];
    const known = (await library.models.list()).find((model) => model.origin === 'embedded');
    try {
      const card = await readModelCard(folder);
      if (known?.folder === folder && known.fingerprint === (await fingerprints.of(card))) return [];
      await this.#add(card, 'embedded', known?.id);
      return [];
    } catch (error) {
      if (!(error instanceof StudioError) || error.code !== 'bad-model-file') throw error;
      return [`The built-in model cannot be used. ${error.message}`];
    }
  }

  /** Errors: bad-model-file, conflict, disk-full, io. */
  async import(path: string, how: 'reference' | 'copy', name?: string): Promise<Model> {
    const { library, engines } = this.#options;
    const source = resolve(path);
    const folder = (await stat(source).catch(() => undefined))?.isFile() ? join(source, '..') : source;
    const listed = await library.models.list();
    const twin = listed.find((model) => resolve(model.folder) === folder);
    if (twin) throw new StudioError('conflict', `This model is already here as “${twin.id}”.`, { field: 'path' });
    if (existsSync(join(folder, 'model.json'))) return this.#take(folder, how, name);
    const described = await describeWeights(folder, name, library.paths.models, engines);
    try {
      return await this.#take(described, how, name);
    } finally {
      const kept = (await library.models.list()).some((model) => model.folder === described);
      if (!kept) await rm(described, { recursive: true, force: true });
    }
  }

  /** The engine reads every header: a model that it refuses is not added. */
  async #take(folder: string, how: 'reference' | 'copy', name?: string): Promise<Model> {
    const { library } = this.#options;
    await this.look(folder);
    const from = how === 'reference' ? folder : await copyModel(await readModelCard(folder), library.paths.models);
    try {
      const card = await readModelCard(from);
      return await this.#add(name === undefined ? card : { ...card, name }, how);
    } catch (error) {
      // A copy that the library could not note down would lie there unseen.
      if (how === 'copy') await rm(from, { recursive: true, force: true });
      throw error;
    }
  }

  /** Lets the engine read a model's headers. Errors: bad-model-file. */
  async look(folder: string): Promise<void> {
    await this.#options.engines.ask((engine) => engine.inspect(folder));
  }

  /** Adds a folder that a download has filled, with the hashes of its files. */
  async addDownloaded(folder: string, id: string, hashes: Record<string, string>, licence: string): Promise<Model> {
    return this.#add(await readModelCard(folder), 'download', id, hashes, licence);
  }

  /** Reads all files. Errors: not-found, bad-model-file when there is no card. */
  async verify(id: string): Promise<{ ok: boolean; files: Verified[] }> {
    const model = await this.#options.library.models.get(id);
    const card = await readModelCard(model.folder);
    const paths = filesOf(card);
    const sizes = await Promise.all(
      paths.map(async ({ path }) => (await stat(path).catch(() => undefined))?.size ?? 0),
    );
    const total = sizes.reduce((sum, size) => sum + size, 0);
    const hashes = { ...model.hashes };
    const files: Verified[] = [];
    let done = 0;
    for (const [index, { name, path }] of paths.entries()) {
      const bytes = sizes[index] ?? 0;
      if (!existsSync(path)) {
        files.push({ name, bytes: 0, sha256: '', state: 'missing' });
        continue;
      }
      const sha256 = await hashFile(path, (read) =>
        this.#options.publish('models.verifying', { id, fraction: total === 0 ? 1 : (done + read) / total }),
      );
      done += bytes;
      const recorded = hashes[name];
      files.push({
        name,
        bytes,
        sha256,
        state: recorded === undefined ? 'recorded' : recorded === sha256 ? 'same' : 'different',
      });
      hashes[name] = recorded ?? sha256;
    }
    await this.#options.library.models.put({ ...model, hashes });
    return { ok: files.every((file) => file.state === 'same' || file.state === 'recorded'), files };
  }

  /** Errors: not-found, conflict. */
  async remove(id: string): Promise<void> {
    const { library } = this.#options;
    const model = await library.models.get(id);
    if (model.origin === 'embedded') {
      throw new StudioError('conflict', 'This model is part of the studio and cannot be removed.', { field: 'id' });
    }
    const waiting = await library.renders.waitingFor(id);
    if (waiting > 0) {
      const what = waiting === 1 ? 'A render is' : `${waiting} renders are`;
      throw new StudioError('conflict', `${what} waiting for this model: cancel or finish first.`, { field: 'id' });
    }
    await library.models.remove(id);
    // Only what lies in the library's own folder is ours to delete.
    const inside = resolve(model.folder).startsWith(resolve(library.paths.models) + sep);
    if (inside) await rm(model.folder, { recursive: true, force: true });
    await this.#changed();
  }

  /** The installed model a clip was made with, by the fingerprint it carries. */
  async byFingerprint(fingerprint: string): Promise<string | null> {
    const models = await this.#options.library.models.list();
    return models.find((model) => model.fingerprint === fingerprint)?.id ?? null;
  }

  async #add(
    card: ModelCard,
    origin: StoredModel['origin'],
    wantedId?: string,
    hashes: Record<string, string> = {},
    licence?: string,
  ): Promise<Model> {
    const { library } = this.#options;
    // The embedded model keeps its id; whatever had it before is replaced.
    const others = (await library.models.list()).filter(
      (model) => origin !== 'embedded' || model.origin !== 'embedded',
    );
    const taken = new Set(others.map((model) => model.id));
    const base = wantedId ?? slug(card.id);
    let id = base;
    for (let number = 2; taken.has(id); number++) id = `${base}-${number}`;
    const sizes = await Promise.all(filesOf(card).map(async ({ path }) => (await stat(path)).size));
    const model: StoredModel = {
      id,
      name: card.name,
      folder: card.folder,
      origin,
      licence: licence ?? card.licence,
      fingerprint: await this.#options.fingerprints.of(card),
      bytes: sizes.reduce((sum, size) => sum + size, 0),
      card: {
        limits: card.limits,
        defaults: card.defaults,
        policy: card.policy ?? null,
        randomWeights: card.randomWeights,
      },
      hashes,
      addedAt: Date.now(),
    };
    await library.models.put(model);
    await this.#changed();
    return this.#shown(model);
  }

  /** Whether the files are there and are those that were recorded, and what their card says to whoever looks. */
  async #standing(model: StoredModel): Promise<Pick<Model, 'state' | 'reason' | 'licence' | 'knows'>> {
    const { licence } = model;
    try {
      const card = await readModelCard(model.folder);
      const shown = { licence: licence ?? card.licence, knows: card.knows };
      return (await this.#options.fingerprints.of(card)) === model.fingerprint
        ? { state: 'ok', reason: null, ...shown }
        : {
            state: 'changed',
            reason: 'The files are not those that were added: add the model again to use them.',
            ...shown,
          };
    } catch (error) {
      return { state: 'missing', reason: (error as Error).message, licence, knows: {} };
    }
  }

  async #changed(): Promise<void> {
    this.#options.onChange();
    this.#options.publish('models.changed', { items: await this.list() });
  }

  async #shown(model: StoredModel): Promise<Model> {
    const { card, hashes: _hashes, ...stored } = model;
    const policy = attentionPolicy.nullable().safeParse(card['policy'] ?? null);
    return {
      ...stored,
      ...(await this.#standing(model)),
      limits: modelLimits.parse(card['limits'] ?? {}),
      defaults: (card['defaults'] ?? {}) as Model['defaults'],
      policy: policy.success ? policy.data : null,
      randomWeights: card['randomWeights'] === true,
    };
  }
}
