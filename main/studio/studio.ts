/**
 * The studio: one library, its queue at work, and the contract answered. Hosts (desktop, headless, command line) open one,
 * connect pipes to it, and close it.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type ErrorShape, StudioError, toErrorShape } from '../../contract/errors.ts';
import { type EventName, events as eventTable, type Handlers, isMethodName, methods } from '../../contract/index.ts';
import { parseRequest } from '../../contract/parse.ts';
import { contractVersion, type StudioStatus } from '../../contract/studio.ts';
import type { LaunchProcess } from '../engine/process/launch.ts';
import { type Core, openCore } from './core.ts';
import { freeBytes } from './files/space.ts';
import { EventHub } from './eventHub.ts';
import type { CallContext } from './handlers/context.ts';
import { coreHandlers, isStandingMethod, type StandingMethod } from './handlers/index.ts';
import { type Library, startLibrary } from './library/libraryClient.ts';
import type { CatalogueSource } from './models/catalogue.ts';
import type { RetryPolicy } from './models/fetchFile.ts';

/** What a host can do beside answering the contract. Paths never come from a client: media ids do. */
export interface HostAbilities {
  kind: StudioStatus['host']['kind'];
  reveal?(path: string): Promise<void>;
  choosePath?(what: 'file' | 'folder', title: string): Promise<string | null>;
}

export interface StudioOptions {
  /** The library's folder. */
  folder: string;
  version: string;
  host: HostAbilities;
  /** Folder of the model that comes with the studio; listed when it is there. */
  embeddedModel?: string | null;
  galleryFolder?: string | null;
  /** How child processes start here; Node's fork by default. */
  launch?: LaunchProcess;
  /** Another engine addon than the built one (tests). */
  addon?: string;
  catalogue?: readonly CatalogueSource[];
  fetch?: typeof fetch;
  downloadRetry?: Partial<RetryPolicy>;
  spaceCheckMs?: number;
  /** False: the library and its queue can be read and changed, but nothing is rendered, and no download goes on by itself. */
  work?: boolean;
}

export class Studio {
  readonly events = new EventHub();
  readonly #options: StudioOptions;
  readonly #library: Library;
  readonly #standing: Pick<Handlers<CallContext>, StandingMethod>;
  #core: Core | undefined;
  #handlers: Omit<Handlers<CallContext>, StandingMethod> | undefined;
  #problem: ErrorShape | null = null;
  #restoring = false;
  /** Resolves when the parts that a damaged library stopped have ended. */
  #stopped: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(options: StudioOptions, library: Library) {
    this.#options = options;
    this.#library = library;
    this.#standing = this.#standingHandlers();
  }

  /**
   * Opens the library and lets the queue work. A damaged database opens too, in a state where only its restoration is offered.
   * Errors: library-locked, library-newer, io, disk-full.
   */
  static async open(options: StudioOptions): Promise<Studio> {
    const library = startLibrary(options.folder);
    const studio = new Studio(options, library);
    try {
      await library.control.lock();
      try {
        await library.control.open();
      } catch (error) {
        if (!(error instanceof StudioError) || error.code !== 'library-corrupt') throw error;
        studio.#problem = toErrorShape(error);
        return studio;
      }
      await studio.#begin(false);
      return studio;
    } catch (error) {
      await studio.close('it could not be opened');
      throw error;
    }
  }

  /** Parses and answers one call. Errors: bad-request for what is no call of the contract, and the method's own. */
  async call(name: string, input: unknown, context: CallContext): Promise<unknown> {
    if (!isMethodName(name))
      throw new StudioError('bad-request', `There is no method ${name.slice(0, 100)}.`, { field: 'method' });
    if (this.#closed) throw new StudioError('closing', 'The studio is closing.');
    refuseDeepNesting(input);
    const parsed = parseRequest(methods[name].input, input);
    if (isStandingMethod(name)) {
      return (this.#standing[name] as (input: unknown, context: CallContext) => unknown)(parsed, context);
    }
    if (!this.#handlers) {
      const { code, message } = this.#problem ?? { code: 'closing' as const, message: 'The studio is not open.' };
      throw new StudioError(code, message);
    }
    try {
      return await (this.#handlers[name] as (input: unknown, context: CallContext) => unknown)(parsed, context);
    } catch (error) {
      if (error instanceof StudioError && error.code === 'library-corrupt') await this.#foundCorrupt(error);
      throw error;
    }
  }

  /** Whether an event is for a connection: heavy ones only for those who watch. */
  wants(connection: string, name: EventName, payload: unknown): boolean {
    if (!eventTable[name].watchersOnly) return true;
    return this.#core?.watchers.wants(connection, name, (payload as { id: string }).id) ?? false;
  }

  disconnected(connection: string): void {
    this.#core?.watchers.disconnected(connection);
  }

  /** The file behind a media id, null for none. */
  async media(id: string): Promise<string | null> {
    const core = this.#core;
    if (!core) return null;
    const [, kind, name, part] = /^([a-z]{3})_([0-9a-z]{1,40})\.([a-z]{1,10})$/.exec(id) ?? [];
    let path: string | null = null;
    if (kind === 'gal') path = core.gallery.file(id);
    else if (kind === 'exp' && part === 'file') path = core.exports.file(`exp_${name}`);
    else if (kind === 'tak' && (part === 'clip' || part === 'poster')) {
      const files = await core.library.takes.files(`tak_${name}`).catch(() => null);
      const file = part === 'clip' ? files?.file : files?.poster;
      path = file ? join(core.library.paths.folder, file) : null;
    }
    return path !== null && existsSync(path) ? path : null;
  }

  /** What start-up found and mended, in words. */
  get notices(): readonly string[] {
    return this.#core?.notices ?? [];
  }

  /** Lets other processes of this person find the host that serves this library. */
  async announce(url: string): Promise<void> {
    await this.#library.control.setOwner({ pid: process.pid, url });
  }

  /** The engine process that renders, while one runs; for tests and process lists. */
  get enginePid(): number | undefined {
    return this.#core?.engines.rendererPid;
  }

  /** Stops the running render at its last finished step, with a checkpoint; everything else in order. */
  async close(reason = 'The studio is closing.'): Promise<void> {
    if (this.#closed) return;
    this.events.publish('studio.closing', { reason });
    this.#closed = true;
    await this.#stopped;
    await this.#core?.close();
    await this.#library.close();
  }

  async #begin(adopt: boolean): Promise<void> {
    const core = await openCore(this.#library, this.events, this.#options, {
      adopt,
      onCorrupt: (error) => void this.#foundCorrupt(error),
    });
    this.#core = core;
    this.#handlers = coreHandlers(core);
    this.#problem = null;
    await core.library.projects.chosen(undefined);
    // A full disk is no reason not to open.
    await this.#library.upkeep.backupIfDue().catch((error: Error) => {
      core.notices.push(`The daily backup of the library could not be made. ${error.message}`);
    });
    const work = this.#options.work ?? true;
    if (work) await core.downloads.goOnAsLeft();
    await core.queue.start(work);
  }

  #standingHandlers(): Pick<Handlers<CallContext>, StandingMethod> {
    const { control, upkeep } = this.#library;
    const { host } = this.#options;
    const unsupported = () => new StudioError('unsupported', 'This host cannot do that: it works in the desktop app.');
    return {
      'studio.status': () => this.#status(),
      'library.backups': async () => ({ items: await control.backups() }),
      'library.backup': () => upkeep.backup(),
      'library.check': async () => {
        if (this.#problem) return { problems: [this.#problem.message] };
        const problems = await upkeep.check();
        if (problems.length > 0) {
          const shown = problems.slice(0, 3).join('; ');
          await this.#foundCorrupt(new StudioError('library-corrupt', `The library's database is damaged: ${shown}.`));
        }
        return { problems };
      },
      'library.restore': async ({ name, anew }) => {
        if (!this.#problem || this.#restoring)
          throw new StudioError('conflict', 'The library is well: there is nothing to restore.');
        this.#restoring = true;
        try {
          await this.#stopped;
          await (anew ? control.startAnew() : control.restore(name));
          await this.#begin(true);
        } finally {
          this.#restoring = false;
        }
        this.events.publish('library.changed', await this.#libraryStatus());
        return this.#status();
      },
      'host.reveal': async ({ mediaId }) => {
        if (!host.reveal) throw unsupported();
        const path = await this.media(mediaId);
        if (path === null) throw new StudioError('not-found', 'There is no such file.', { field: 'mediaId' });
        await host.reveal(path);
        return {};
      },
      'host.choosePath': async ({ what, title }) => {
        if (!host.choosePath) throw unsupported();
        return { path: await host.choosePath(what, title) };
      },
    };
  }

  /** Damage that shows while the library is open: everything stops, only restoration is offered. */
  async #foundCorrupt(error: StudioError): Promise<void> {
    if (this.#problem) return;
    this.#problem = toErrorShape(error);
    this.#handlers = undefined;
    const core = this.#core;
    this.#core = undefined;
    this.#stopped = core?.close().catch(() => {}) ?? this.#stopped; // its last words go to a library that cannot take them
    this.events.publish('library.changed', await this.#libraryStatus());
  }

  async #libraryStatus(): Promise<StudioStatus['library']> {
    const { folder } = this.#library.paths;
    return {
      state: this.#problem ? 'corrupt' : 'ok',
      problem: this.#problem,
      folder,
      freeBytes: await freeBytes(folder),
    };
  }

  async #status(): Promise<StudioStatus> {
    const { host, version } = this.#options;
    return {
      contractVersion,
      version,
      host: { kind: host.kind, canReveal: host.reveal !== undefined, canChoosePaths: host.choosePath !== undefined },
      library: await this.#libraryStatus(),
      notices: [...this.notices],
    };
  }
}

const deepestInput = 64;

/** Schemas and codecs walk inputs by recursion; nothing of ours is nested deeply. Errors: bad-request. */
function refuseDeepNesting(input: unknown): void {
  let level = [input];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > deepestInput) throw new StudioError('bad-request', 'The request is nested too deeply.');
    level = level.flatMap((value): unknown[] =>
      typeof value === 'object' && value !== null && !ArrayBuffer.isView(value) ? Object.values(value) : [],
    );
  }
}
