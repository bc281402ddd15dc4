/** Engine and encoder as Electron utility processes: the app's own binary, no Node mode needed. */
import { basename } from 'node:path';
import { utilityProcess } from 'electron';
import type { ChildMessage } from '../engine/process/messages.ts';
import type { LaunchProcess } from '../engine/process/launch.ts';

export const launchWithElectron: LaunchProcess = ({ entry, args, env }) => {
  const child = utilityProcess.fork(entry, args, {
    serviceName: `VMoBA Studio ${basename(entry, '.js')}`,
    stdio: ['ignore', 'inherit', 'pipe'],
    env: { ...definedOnly(process.env), ...env, VMOBA_PARENT_PID: String(process.pid) },
    execArgv: [],
  });
  let ended = false;
  child.once('exit', () => (ended = true));
  return {
    get pid() {
      return child.pid;
    },
    send: (message) => {
      if (!ended) child.postMessage(message);
    },
    onMessage: (listener) => void child.on('message', (message: ChildMessage) => listener(message)),
    onStderr: (listener) => void child.stderr?.on('data', (part: Buffer) => listener(part.toString('utf8'))),
    onExit: (listener) => void child.once('exit', (code) => listener({ code, signal: null })),
    kill: () => {
      // Not child.kill(): that asks, and a process in the middle of native work does not hear.
      if (child.pid === undefined) child.once('spawn', () => endAtOnce(child.pid));
      else endAtOnce(child.pid);
    },
  };
};

function endAtOnce(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

function definedOnly(env: NodeJS.ProcessEnv): Record<string, string> {
  return Object.fromEntries(Object.entries(env).filter((pair): pair is [string, string] => pair[1] !== undefined));
}
