/** Takes in other formats, one after another; each appears complete or not at all. */
import { existsSync } from 'node:fs';
import { extname, join, resolve } from 'node:path';
import { StudioError, toErrorShape } from '../../../contract/errors.ts';
import type { ClipExport } from '../../../contract/exports.ts';
import { EncodeClient, type EncodeClientOptions } from '../encode/encodeClient.ts';
import { type ClipFormat, fileEndings, rateFactors } from '../encode/formats.ts';
import { makeFolder } from '../files/folders.ts';
import type { Publish } from '../eventHub.ts';
import { newId } from '../library/ids.ts';
import type { Library } from '../library/libraryClient.ts';

export interface ExportsOptions {
  library: Library;
  encoder?: EncodeClientOptions;
  publish: Publish;
}

const kept = 100;
const tellEveryMs = 250;

export const exportFormats = (
  [
    ['mp4', 'MP4 (H.264)', 'Plays everywhere.'],
    ['webm-vp9', 'WebM (VP9)', 'For the web; smaller than MP4.'],
    ['webm-av1', 'WebM (AV1)', 'The smallest; newer players.'],
    ['mov-prores', 'MOV (ProRes)', 'For editing: large, nearly lossless.'],
    ['gif', 'GIF', '256 colours, plays by itself in messages and pages.'],
    ['png', 'PNG sequence', 'A folder with one lossless picture per frame.'],
  ] as const
).map(([format, name, description]) => ({
  format,
  name,
  description,
  ending: fileEndings[format],
  rateFactor: rateFactors[format] ?? null,
}));

export class Exports {
  readonly #options: ExportsOptions;
  /** Of its own, so that a render's frames never wait behind an export. */
  #encoder: EncodeClient | undefined;
  readonly #exports = new Map<string, ClipExport>();
  #last: Promise<void> = Promise.resolve();
  #running: { id: string; encoder: EncodeClient } | undefined;

  constructor(options: ExportsOptions) {
    this.#options = options;
  }

  list(): ClipExport[] {
    return [...this.#exports.values()].reverse();
  }

  /** Errors: not-found, disk-full, io, bad-request for a rate factor the format does not have. */
  async start(input: {
    takeId: string;
    format: ClipFormat;
    rateFactor?: number;
    folder?: string;
  }): Promise<ClipExport> {
    const { library } = this.#options;
    const take = await library.takes.get(input.takeId);
    const range = rateFactors[input.format];
    if (input.rateFactor !== undefined && (!range || input.rateFactor < range.best || input.rateFactor > range.worst)) {
      const takes = range ? `takes ${range.best} to ${range.worst}` : 'has no rate factor';
      throw new StudioError('bad-request', `rateFactor: ${input.format} ${takes}.`, { field: 'rateFactor' });
    }
    const { file } = await library.takes.files(input.takeId);
    const source = join(library.paths.folder, file);
    if (!existsSync(source))
      throw new StudioError('not-found', `The clip's file is gone: ${source}.`, { field: 'takeId' });
    const settings = await library.settings.get();
    const folder = resolve(input.folder ?? settings.exportFolder ?? library.paths.exports);
    await makeFolder(folder);
    const name = fileName(take.name, file);
    const taken = new Set(
      this.list()
        .filter((one) => one.state === 'running')
        .map((one) => one.path),
    );
    let path = join(folder, name + fileEndings[input.format]);
    for (let number = 2; existsSync(path) || taken.has(path); number++) {
      path = join(folder, `${name}-${number}${fileEndings[input.format]}`);
    }
    const started: ClipExport = {
      id: newId('exp'),
      takeId: take.id,
      format: input.format,
      state: 'running',
      frames: 0,
      ofFrames: take.clip.frames,
      path,
      mediaId: null,
      bytes: null,
      error: null,
      createdAt: Date.now(),
    };
    this.#exports.set(started.id, started);
    for (const id of this.#exports.keys()) {
      if (this.#exports.size <= kept) break;
      if (this.#exports.get(id)?.state !== 'running') this.#exports.delete(id);
    }
    this.#last = this.#last.then(() => this.#run(started.id, source, input));
    this.#options.publish('exports.changed', started);
    return started;
  }

  async cancel(id: string): Promise<void> {
    const one = this.#get(id);
    if (one.state !== 'running') return;
    this.#set(id, { state: 'cancelled' });
    // The encoder works on one clip; ending it ends the export, and what was written goes with it.
    if (this.#running?.id === id) await this.#running.encoder.stop();
  }

  /** A finished export's file, for the host's media address. */
  file(id: string): string | null {
    const one = this.#exports.get(id);
    return one?.state === 'done' && one.mediaId !== null ? one.path : null;
  }

  async close(): Promise<void> {
    for (const one of this.list()) if (one.state === 'running') this.#set(one.id, { state: 'cancelled' });
    await this.#encoder?.stop();
    await this.#last;
  }

  async #run(id: string, source: string, input: { format: ClipFormat; rateFactor?: number }): Promise<void> {
    if (this.#get(id).state !== 'running') return;
    this.#encoder ??= new EncodeClient(this.#options.encoder);
    this.#running = { id, encoder: this.#encoder };
    let toldAt = 0;
    try {
      const { path } = this.#get(id);
      const clip = await this.#encoder.transcode(
        { source, path, format: input.format, rateFactor: input.rateFactor },
        (frames) => {
          const now = performance.now();
          const tell = now - toldAt > tellEveryMs;
          if (tell) toldAt = now;
          this.#set(id, { frames }, tell);
        },
      );
      const isFile = extname(path) !== '' && input.format !== 'png';
      this.#set(id, { state: 'done', frames: clip.frames, bytes: clip.bytes, mediaId: isFile ? `${id}.file` : null });
    } catch (error) {
      if (this.#get(id).state === 'running') this.#set(id, { state: 'failed', error: toErrorShape(error) });
    } finally {
      this.#running = undefined;
    }
  }

  #get(id: string): ClipExport {
    const one = this.#exports.get(id);
    if (!one) throw new StudioError('not-found', 'There is no such export.', { field: 'id' });
    return one;
  }

  #set(id: string, changes: Partial<ClipExport>, tell = true): void {
    const changed = { ...this.#get(id), ...changes };
    this.#exports.set(id, changed);
    if (tell) this.#options.publish('exports.changed', changed);
  }
}

/** What the person called it, safe on every system; the end of the take's own name keeps two of a name apart. */
function fileName(title: string, file: string): string {
  const words = title
    .normalize('NFKC')
    .replace(/[^\p{L}\p{N} _.-]+/gu, ' ')
    .replace(/\s+/g, ' ')
    .trim()
    .replace(/^\.+/, '');
  const readable = [...words].slice(0, 60).join('').trim();
  return readable || (file.split('/').at(-1) ?? 'clip').replace(/\.[^.]+$/, '');
}
