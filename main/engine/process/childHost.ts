/**
 * The child's side of a supervised process: serves calls, and makes sure that the process is gone within two seconds of its
 * parent, whatever native code is doing.
 */
import { readdirSync } from 'node:fs';
import { setPriority } from 'node:os';
import { type ChildMessage, type ParentMessage, toFailure } from './messages.ts';

/** What a served method gets besides its arguments. */
export interface CallContext {
  /** Sends an event to the caller's listener; stays usable after the call returned (progress of an opened session). */
  emit(payload: unknown): void;
}

export type Methods = Record<string, (context: CallContext, ...args: never[]) => unknown>;
export type Tells = Record<string, (...args: never[]) => void>;

/** Electron's `process.parentPort`, as far as it is used here. */
interface ParentPort {
  on(event: 'message', listener: (event: { data: unknown }) => void): void;
  postMessage(message: unknown): void;
}

/**
 * Serves `methods` (answered) and `tells` (not answered) to the parent until told to stop or until the parent is gone.
 * Calls run as they arrive; ordering is the business of what they call.
 */
export function serve(methods: Methods, tells: Tells = {}): void {
  const port = connect((message) => void handle(message));
  watchParent();
  port.send({ kind: 'ready' });

  async function handle(message: ParentMessage): Promise<void> {
    switch (message.kind) {
      case 'shutdown':
        exitAtOnce();
        break;
      case 'tell':
        (tells[message.method] as ((...args: unknown[]) => void) | undefined)?.(...message.args);
        break;
      case 'call': {
        const { id } = message;
        try {
          const method = methods[message.method] as ((context: CallContext, ...args: unknown[]) => unknown) | undefined;
          if (!method) throw new Error(`no such method: ${message.method}`);
          const value = await method({ emit: (payload) => port.send({ kind: 'event', id, payload }) }, ...message.args);
          port.send({ kind: 'result', id, value });
        } catch (error) {
          port.send({ kind: 'failure', id, failure: toFailure(error) });
        }
        break;
      }
    }
  }
}

function connect(receive: (message: ParentMessage) => void): { send(message: ChildMessage): void } {
  const parentPort = (process as unknown as { parentPort?: ParentPort }).parentPort;
  if (parentPort) {
    parentPort.on('message', (event) => receive(event.data as ParentMessage));
    return { send: (message) => parentPort.postMessage(message) };
  }
  if (!process.send) throw new Error('this file is started by the studio, not by hand');
  process.on('message', (message) => receive(message as ParentMessage));
  process.on('disconnect', exitAtOnce);
  // A send that fails means that the parent has gone; the watch below ends the process.
  return { send: (message) => process.connected && process.send?.(message, undefined, {}, () => {}) };
}

const parentCheckMs = 500;

/**
 * Ends this process when its parent is gone: when the parent's process no longer exists, or when the system gave this process
 * another parent. Compute runs on native threads, so this timer fires also while they are busy.
 */
export function watchParent(parentPid = Number(process.env['VMOBA_PARENT_PID']) || process.ppid): void {
  const directChild = process.ppid === parentPid;
  setInterval(() => {
    if ((directChild && process.ppid !== parentPid) || !isAlive(parentPid)) exitAtOnce();
  }, parentCheckMs).unref();
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Not `process.exit`: that would wait for a native thread in the middle of a step. Nothing here needs a farewell: files are replaced atomically. */
function exitAtOnce(): void {
  process.kill(process.pid, 'SIGKILL');
}

/**
 * Lowers the priority of this process, so that a window stays fluid beside it.
 * @param nice 0 (normal) to 19 (lowest). On Linux a priority belongs to a thread, so every thread is told.
 */
export function lowerPriority(nice: number): void {
  const threads = process.platform === 'linux' ? readdirSync('/proc/self/task').map(Number) : [0];
  for (const thread of threads) {
    try {
      setPriority(thread, nice);
    } catch {
      // A thread that ended meanwhile, or a system that forbids it: the render only competes harder.
    }
  }
}
