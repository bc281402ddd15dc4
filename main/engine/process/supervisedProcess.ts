/**
 * The parent's side of a supervised process: typed calls as promises, events while they run, and one truth about how the
 * process ended. A process that falls silent during a call is killed; whoever waits learns why. Restarting is the owner's choice.
 */
import { studioError, fromFailure } from '../errors.ts';
import type { ChildHandle, LaunchProcess } from './launch.ts';
import type { ChildMessage } from './messages.ts';

export interface SupervisedOptions {
  /** Names the process in messages and error codes: `<name>-crashed`, `<name>-hung`. */
  name: 'engine' | 'encoder';
  launch: LaunchProcess;
  entry: string;
  args?: string[];
  env?: Record<string, string>;
  /** Longest silence while a call runs before the process counts as hung, in ms. */
  silenceLimitMs: number;
}

/** How a process ended. `reason` is a sentence for people. */
export interface ProcessExit {
  code: number | null;
  signal: string | null;
  reason: string;
  /** Whether the owner ended it with `stop`. */
  expected: boolean;
}

interface PendingCall {
  method: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
  /** Longest silence for this call. */
  silenceLimitMs: number;
}

export interface CallOptions {
  onEvent?: (payload: never) => void;
  /** Keep `onEvent` after the call returned (an opened session goes on reporting). Ended by `forgetEvents`. */
  keepEvents?: boolean;
  silenceLimitMs?: number;
}

const stderrTailBytes = 4096;
/** A process on a busy machine may take long to start; until it says that it is ready its silence means nothing less. */
const startLimitMs = 60_000;
const stopGraceMs = 1000;

export class SupervisedProcess {
  /** Resolves, never rejects, when the process has ended. */
  readonly exited: Promise<ProcessExit>;
  readonly #options: SupervisedOptions;
  readonly #child: ChildHandle;
  readonly #calls = new Map<number, PendingCall>();
  readonly #listeners = new Map<number, (payload: never) => void>();
  readonly #watch: NodeJS.Timeout;
  #nextId = 1;
  #stderr = '';
  #ready = false;
  #lastSign = performance.now();
  #hungReason: string | undefined;
  #stopping = false;
  #exit: ProcessExit | undefined;

  constructor(options: SupervisedOptions) {
    this.#options = options;
    this.#child = options.launch({ entry: options.entry, args: options.args ?? [], env: options.env ?? {} });
    this.#child.onMessage((message) => this.#receive(message));
    this.#child.onStderr((text) => (this.#stderr = (this.#stderr + text).slice(-stderrTailBytes)));
    this.exited = new Promise((resolve) => this.#child.onExit((exit) => resolve(this.#ended(exit))));
    this.#watch = setInterval(() => this.#checkSilence(), Math.min(1000, options.silenceLimitMs / 4));
    this.#watch.unref();
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get alive(): boolean {
    return this.#exit === undefined;
  }

  /** Calls a method of the child. Rejects with the child's StudioError, or with `<name>-crashed` / `<name>-hung`. */
  call<Result>(method: string, args: unknown[], options: CallOptions = {}): Promise<Result> {
    return this.callWithId<Result>(method, args, options).result;
  }

  /** Like `call`, and tells the id under which kept events arrive. */
  callWithId<Result>(
    method: string,
    args: unknown[],
    options: CallOptions = {},
  ): { id: number; result: Promise<Result> } {
    const id = this.#nextId++;
    const result = new Promise<unknown>((resolve, reject) => {
      if (this.#exit) return reject(this.#deathError(this.#exit));
      if (this.#calls.size === 0) this.#lastSign = performance.now();
      this.#calls.set(id, {
        method,
        resolve,
        reject,
        silenceLimitMs: options.silenceLimitMs ?? this.#options.silenceLimitMs,
      });
      if (options.onEvent) this.#listeners.set(id, options.onEvent);
      this.#child.send({ kind: 'call', id, method, args });
    }) as Promise<Result>;
    if (options.onEvent && !options.keepEvents) result.catch(() => {}).finally(() => this.forgetEvents(id));
    return { id, result };
  }

  /** Says something that needs no answer and is acted on at once. */
  tell(method: string, args: unknown[]): void {
    if (this.alive) this.#child.send({ kind: 'tell', method, args });
  }

  forgetEvents(id: number): void {
    this.#listeners.delete(id);
  }

  /** Ends the process, within about a second. */
  async stop(): Promise<void> {
    this.#stopping = true;
    if (this.alive) this.#child.send({ kind: 'shutdown' });
    const timer = setTimeout(() => this.#child.kill(), stopGraceMs);
    await this.exited;
    clearTimeout(timer);
  }

  /** Ends the process at once. */
  kill(): void {
    this.#stopping = true;
    this.#child.kill();
  }

  #receive(message: ChildMessage): void {
    this.#lastSign = performance.now();
    switch (message.kind) {
      case 'ready':
        this.#ready = true;
        break;
      case 'event':
        this.#listeners.get(message.id)?.(message.payload as never);
        break;
      case 'result':
        this.#settle(message.id)?.resolve(message.value);
        break;
      case 'failure':
        this.#settle(message.id)?.reject(fromFailure(message.failure));
        break;
    }
  }

  #settle(id: number): PendingCall | undefined {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }

  #checkSilence(): void {
    const silentMs = performance.now() - this.#lastSign;
    const calls = [...this.#calls.values()];
    if (calls.length === 0 || this.#hungReason) return;
    // The most patient of the running calls decides: calls queue behind each other in the child.
    const limitMs = Math.max(this.#ready ? 0 : startLimitMs, ...calls.map((call) => call.silenceLimitMs));
    if (silentMs < limitMs) return;
    this.#hungReason = `no sign of life for ${Math.round(silentMs / 1000)} s during ${calls[0]?.method ?? 'a call'}`;
    this.#child.kill();
  }

  #ended(exit: { code: number | null; signal: string | null; error?: Error }): ProcessExit {
    clearInterval(this.#watch);
    const how = exit.error
      ? exit.error.message
      : exit.signal
        ? `signal ${exit.signal}`
        : `exit code ${exit.code ?? '?'}`;
    const said = lastLines(this.#stderr);
    const reason = this.#hungReason ?? (said ? `${how}; it said: ${said}` : how);
    this.#exit = { code: exit.code, signal: exit.signal, reason, expected: this.#stopping };
    const error = this.#deathError(this.#exit);
    for (const call of this.#calls.values()) call.reject(error);
    this.#calls.clear();
    this.#listeners.clear();
    return this.#exit;
  }

  #deathError(exit: ProcessExit): Error {
    const { name } = this.#options;
    if (this.#hungReason) return studioError(`${name}-hung`, `The ${name} process was stopped: ${exit.reason}.`);
    if (exit.expected) return studioError(`${name}-stopped`, `The ${name} process was stopped.`);
    return studioError(`${name}-crashed`, `The ${name} process ended unexpectedly: ${exit.reason}.`);
  }
}

/** The last few lines of a log that say something, on one line: a stack trace is for developers. */
function lastLines(text: string): string {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !/^(at |Node\.js v|node:internal)/.test(line))
    .slice(-4)
    .join(' | ');
}
