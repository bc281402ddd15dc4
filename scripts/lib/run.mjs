/**
 * Running commands for the scripts: always with the project's own Node first on the path, from the project's root.
 * Plain JavaScript that any Node from 20 runs, because these scripts also run before anything is installed.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** The pinned Node of the project once packages are installed, otherwise the one running now. */
export function projectNode() {
  const pinned = join(root, 'node_modules', '.bin', process.platform === 'win32' ? 'node.cmd' : 'node');
  return existsSync(pinned) ? pinned : process.execPath;
}

export function environment(extra = {}) {
  const path = `${join(root, 'node_modules', '.bin')}${delimiter}${process.env.PATH ?? ''}`;
  return { ...process.env, PATH: path, ...extra };
}

/** Whether a command is on the path. */
export function hasCommand(name) {
  return spawnSync(process.platform === 'win32' ? 'where' : 'which', [name], { stdio: 'ignore' }).status === 0;
}

/** Runs a command with the terminal's own output; throws CommandFailed when it fails. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env: environment(options.env),
    ...options.spawn,
  });
  if (result.error) throw new CommandFailed(`${command}: ${result.error.message}`);
  if (result.status !== 0)
    throw new CommandFailed(`${command} ${args.join(' ')} ended with ${result.status ?? result.signal}`);
}

/** Runs a command into a log file (and to the terminal when `echo`); resolves to its exit code and whole output. */
export function runLogged(command, args, logFile, { env = {}, echo = false } = {}) {
  mkdirSync(dirname(logFile), { recursive: true });
  return new Promise((resolve) => {
    const log = createWriteStream(logFile);
    const chunks = [];
    const child = spawn(command, args, { cwd: root, env: environment(env), stdio: ['ignore', 'pipe', 'pipe'] });
    const take = (chunk) => {
      chunks.push(chunk);
      log.write(chunk);
      if (echo) process.stdout.write(chunk);
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    const finish = (code) => log.end(() => resolve({ code, output: Buffer.concat(chunks).toString('utf8') }));
    child.on('error', (error) => {
      chunks.push(Buffer.from(`${command}: ${error.message}\n`));
      finish(127);
    });
    child.on('close', (code, signal) => finish(code ?? (signal ? 128 : 1)));
  });
}

export class CommandFailed extends Error {}

/** Ends a script with one clear line instead of a stack trace. */
export async function main(body) {
  try {
    process.exitCode = (await body()) ?? 0;
  } catch (error) {
    console.error(error instanceof CommandFailed ? error.message : error);
    process.exitCode = 1;
  }
}
