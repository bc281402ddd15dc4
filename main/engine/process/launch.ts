/** Starting a child process. A host with its own way (Electron's utilityProcess) passes its own LaunchProcess. */
import { fork } from 'node:child_process';
import type { ChildMessage, ParentMessage } from './messages.ts';

export interface LaunchOptions {
  /** Absolute path of the entry, from `forkEntry`. */
  entry: string;
  args: string[];
  env: Record<string, string>;
}

/** A running child as its supervisor sees it. */
export interface ChildHandle {
  readonly pid: number | undefined;
  send(message: ParentMessage): void;
  onMessage(listener: (message: ChildMessage) => void): void;
  /** Text of the standard error stream, as it comes. */
  onStderr(listener: (text: string) => void): void;
  /** Fires once, also when the process could not be started (then with `error`). */
  onExit(listener: (exit: { code: number | null; signal: string | null; error?: Error }) => void): void;
  /** Ends it at once, without asking. */
  kill(): void;
}

export type LaunchProcess = (options: LaunchOptions) => ChildHandle;

/** Forks a Node process; TypeScript entries run as they are. */
export const launchWithNode: LaunchProcess = ({ entry, args, env }) => {
  const child = fork(entry, args, {
    serialization: 'advanced',
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
    env: { ...process.env, ...env, VMOBA_PARENT_PID: String(process.pid) },
    // Debugger and loader flags of the parent are not the child's.
    execArgv: [],
    // In its own group, so that a Ctrl-C on the terminal reaches only the parent, which then stops the work in order.
    detached: process.platform !== 'win32',
  });
  return {
    pid: child.pid,
    // A closed channel means an exit that is reported by onExit.
    send: (message) => void (child.connected && child.send(message, () => {})),
    onMessage: (listener) => child.on('message', (message) => listener(message as ChildMessage)),
    onStderr: (listener) => child.stderr?.setEncoding('utf8').on('data', listener),
    onExit: (listener) => {
      let reported = false;
      const report = (exit: Parameters<typeof listener>[0]) => {
        if (!reported) listener(exit);
        reported = true;
      };
      // 'close' comes after the last of standard error, which holds the reason.
      child.on('close', (code, signal) => report({ code, signal }));
      child.on('error', (error) => child.pid === undefined && report({ code: null, signal: null, error }));
    },
    kill: () => void child.kill('SIGKILL'),
  };
};
