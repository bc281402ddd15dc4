/**
 * The studio's engine processes: one that renders, restarted when it ends, and a light one beside it for questions (plans,
 * inspection), which would otherwise wait behind a running step.
 */
import type { EngineStatus } from '../../contract/engine.ts';
import { StudioError } from '../../contract/errors.ts';
import type { EngineDescription } from '../engine/binding.ts';
import { EngineClient, type EngineClientOptions } from '../engine/engineClient.ts';
import type { Publish } from './eventHub.ts';

export interface EngineHostOptions {
  client?: Omit<EngineClientOptions, 'nice'>;
  publish: Publish;
}

const idleMs = 60_000;

export class EngineHost {
  readonly #options: EngineHostOptions;
  #renderer: EngineClient | undefined;
  #helper: EngineClient | undefined;
  #helperTimer: NodeJS.Timeout | undefined;
  #helperUses = 0;
  #description: EngineDescription | undefined;
  #unavailable: string | null = null;
  #rendering = false;
  #crashes = 0;
  #closed = false;

  constructor(options: EngineHostOptions) {
    this.#options = options;
  }

  /** The engine that renders; started when there is none. */
  renderer(nice: number): EngineClient {
    this.#refuseWhenClosed();
    if (!this.#renderer?.alive) {
      const client = EngineClient.start({ ...this.#options.client, nice });
      this.#renderer = client;
      void client.exited.then((exit) => {
        if (!exit.expected) this.#crashes++;
        if (this.#renderer === client) this.#renderer = undefined;
        this.#changed();
      });
    }
    return this.#renderer;
  }

  /** Asks the helper engine something short; once more where it died meanwhile. Errors: the engine's. */
  async ask<Result>(question: (engine: EngineClient) => Promise<Result>): Promise<Result> {
    this.#refuseWhenClosed();
    clearTimeout(this.#helperTimer);
    this.#helperUses++;
    try {
      return await question(this.#runningHelper()).catch((error: unknown) => {
        if (!(error instanceof StudioError) || error.code !== 'engine-crashed' || this.#closed) throw error;
        return question(this.#runningHelper());
      });
    } finally {
      if (--this.#helperUses === 0 && !this.#closed) {
        this.#helperTimer = setTimeout(() => this.#stopHelper(), idleMs);
        this.#helperTimer.unref();
      }
    }
  }

  #runningHelper(): EngineClient {
    if (!this.#helper?.alive) this.#helper = EngineClient.start({ ...this.#options.client, nice: 0 });
    return this.#helper;
  }

  /** Forgotten at once: nobody may ask a process that is about to end. */
  #stopHelper(): void {
    void this.#helper?.stop();
    this.#helper = undefined;
  }

  /** What the engine is and runs on; asked once. */
  async describe(): Promise<EngineDescription> {
    try {
      this.#description ??= await this.ask((engine) => engine.describe());
      this.#unavailable = null;
      return this.#description;
    } catch (error) {
      this.#unavailable = error instanceof Error ? error.message : String(error);
      throw error;
    }
  }

  async status(): Promise<EngineStatus> {
    await this.describe().catch(() => {}); // the status says so
    return this.#status();
  }

  setRendering(rendering: boolean): void {
    if (this.#rendering === rendering) return;
    this.#rendering = rendering;
    this.#changed();
  }

  get rendererPid(): number | undefined {
    return this.#renderer?.pid;
  }

  /** Ends the rendering process; the runner goes on in a new one. */
  async restart(): Promise<void> {
    await this.#renderer?.stop();
    this.#description = undefined;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#helperTimer);
    await Promise.all([this.#renderer?.stop(), this.#helper?.stop()]);
  }

  #status(): EngineStatus {
    const description = this.#description;
    return {
      state:
        this.#unavailable !== null
          ? 'unavailable'
          : this.#rendering
            ? 'rendering'
            : this.#renderer
              ? 'idle'
              : 'stopped',
      reason: this.#unavailable,
      version: description?.version ?? null,
      build: description?.build ?? null,
      threads: description?.threads ?? null,
      devices: description?.devices ?? [],
      crashes: this.#crashes,
    };
  }

  #changed(): void {
    if (!this.#closed) this.#options.publish('engine.changed', this.#status());
  }

  #refuseWhenClosed(): void {
    if (this.#closed) throw new StudioError('closing', 'The studio is closing.');
  }
}
