/**
 * The engine as the studio sees it: a supervised process with typed promises. A client is good for one process; when that
 * ends (`exited`), its owner decides whether to start another.
 */
import type {
  EngineDescription,
  EngineProgress,
  ModelInspection,
  NativeFrames,
  RenderPlan,
  SessionRequest,
  StepOptions,
  TextReport,
} from './binding.ts';
import { forkEntry } from './process/forkEntry.ts';
import { type LaunchProcess, launchWithNode } from './process/launch.ts';
import { type CallOptions, type ProcessExit, SupervisedProcess } from './process/supervisedProcess.ts';
import type {
  EngineMethods,
  EngineTells,
  RestoredCheckpoint,
  SavedCheckpoint,
  SessionId,
  StepOutcome,
  VerifyOptions,
  VerifyRow,
  VerifySummary,
} from './protocol.ts';

export interface EngineClientOptions {
  /** How child processes start here; Node's fork by default. */
  launch?: LaunchProcess;
  /** Longest silence of a running call before the engine counts as hung. Native code reports progress per layer. */
  silenceLimitMs?: number;
  /** 0 (normal) to 19: how much the engine yields to other programs. */
  nice?: number;
  /** Another addon than the built one (tests). */
  addon?: string;
}

const defaultSilenceLimitMs = 60_000;
/** Work that reports per benchmark or per fixture, not per layer. */
const longWorkSilenceMs = 30 * 60_000;

export class EngineClient {
  readonly #process: SupervisedProcess;

  private constructor(process: SupervisedProcess) {
    this.#process = process;
  }

  /** Starts the engine process. Returns at once; a process that cannot start rejects the first call. */
  static start(options: EngineClientOptions = {}): EngineClient {
    return new EngineClient(
      new SupervisedProcess({
        name: 'engine',
        launch: options.launch ?? launchWithNode,
        entry: forkEntry(import.meta.url, './engineProcess.ts'),
        args: options.nice ? [`--nice=${options.nice}`] : [],
        env: options.addon ? { VMOBA_ADDON: options.addon } : {},
        silenceLimitMs: options.silenceLimitMs ?? defaultSilenceLimitMs,
      }),
    );
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  get alive(): boolean {
    return this.#process.alive;
  }

  /** Resolves when the process has ended, with the reason. */
  get exited(): Promise<ProcessExit> {
    return this.#process.exited;
  }

  describe(): Promise<EngineDescription> {
    return this.#call('describe', []);
  }

  /** What a weight file, index, folder or model.json holds; nothing is loaded. */
  inspect(path: string): Promise<ModelInspection> {
    return this.#call('inspect', [path]);
  }

  verify(options: VerifyOptions, onRow: (row: VerifyRow) => void): Promise<VerifySummary> {
    return this.#call('verify', [options], { onEvent: onRow, silenceLimitMs: longWorkSilenceMs });
  }

  bench(
    options: Record<string, unknown>,
    onLine: (line: Record<string, unknown>) => void,
  ): Promise<Record<string, unknown>> {
    return this.#call('bench', [options], { onEvent: onLine, silenceLimitMs: longWorkSilenceMs });
  }

  /** Memory, work and partitions of a request, without loading weights. Rejects bad requests with their field. */
  plan(request: SessionRequest): Promise<RenderPlan> {
    return this.#call('plan', [request]);
  }

  /** Loads the model (or reuses it) and prepares one render. */
  async openSession(request: SessionRequest, onProgress: (progress: EngineProgress) => void): Promise<EngineSession> {
    const { id, result } = this.#process.callWithId<SessionId>('open', [request], {
      onEvent: onProgress,
      keepEvents: true,
    });
    try {
      return new EngineSession(this.#process, await result, () => this.#process.forgetEvents(id));
    } catch (error) {
      this.#process.forgetEvents(id);
      throw error;
    }
  }

  /** Makes the engine yield to other programs from now on: 0 (normal) to 19. Systems refuse to go back. */
  lowerPriority(nice: number): void {
    this.#process.tell('lowerPriority' satisfies keyof EngineTells, [nice]);
  }

  /** Ends the process, within about a second. Running calls reject with `engine-stopped`. */
  stop(): Promise<void> {
    return this.#process.stop();
  }

  kill(): void {
    this.#process.kill();
  }

  #call<Name extends keyof EngineMethods>(
    method: Name,
    args: Parameters<EngineMethods[Name]>,
    options?: CallOptions,
  ): Promise<ReturnType<EngineMethods[Name]>> {
    return this.#process.call(method, args, options);
  }
}

/** One render inside the engine process. Calls queue behind each other; `cancel` acts at once. */
export class EngineSession {
  readonly #process: SupervisedProcess;
  readonly #id: SessionId;
  readonly #forget: () => void;

  constructor(process: SupervisedProcess, id: SessionId, forget: () => void) {
    this.#process = process;
    this.#id = id;
    this.#forget = forget;
  }

  encodeText(): Promise<TextReport> {
    return this.#call('encodeText', []);
  }

  /** Advances exactly one denoising step. */
  step(options: StepOptions = {}): Promise<StepOutcome> {
    return this.#call('step', [options]);
  }

  /** Writes the sampler's state atomically. */
  saveCheckpoint(path: string): Promise<SavedCheckpoint> {
    return this.#call('saveCheckpoint', [path]);
  }

  restoreCheckpoint(path: string): Promise<RestoredCheckpoint> {
    return this.#call('restoreCheckpoint', [path]);
  }

  /** 64-bit hash of the current latent, 16 hex digits. */
  latentHash(): Promise<string> {
    return this.#call('latentHash', []);
  }

  /** The next run of decoded frames, null after the last. */
  decodeFrames(): Promise<NativeFrames | null> {
    return this.#call('decodeFrames', []);
  }

  /** The running call rejects with `cancelled` within a second; the session stays usable at the last finished step. */
  cancel(): void {
    this.#process.tell('cancel' satisfies keyof EngineTells, [this.#id]);
  }

  async close(): Promise<void> {
    this.#forget();
    await this.#call('close', []);
  }

  #call<Name extends SessionMethod>(
    method: Name,
    args: Parameters<EngineMethods[Name]> extends [SessionId, ...infer Rest] ? Rest : never,
  ): Promise<ReturnType<EngineMethods[Name]>> {
    return this.#process.call(method, [this.#id, ...args]);
  }
}

type SessionMethod = {
  [Name in keyof EngineMethods]: EngineMethods[Name] extends (session: SessionId, ...args: never[]) => unknown
    ? Name
    : never;
}[keyof EngineMethods];
