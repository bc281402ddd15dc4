/** The command line as a program uses it: JSON lines in order, signals, exit codes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';

export const projectRoot = fileURLToPath(new URL('../..', import.meta.url));

export interface CliLine {
  event: string;
  [key: string]: unknown;
}

export interface CliResult {
  code: number | null;
  signal: string | null;
  lines: CliLine[];
  stdout: string;
  stderr: string;
}

export interface RunningCli {
  child: ChildProcess;
  lines: CliLine[];
  /** The first line that matches, now or later; undefined when the command ends without it. */
  line(matches: (line: CliLine) => boolean): Promise<CliLine | undefined>;
  result: Promise<CliResult>;
}

const running = new Set<ChildProcess>();

/** Ends what a failed test left running; for `afterEach`. */
export function endStartedClis(): void {
  for (const child of running) child.kill('SIGKILL');
}

export function startCli(args: string[], env: Record<string, string> = {}): RunningCli {
  const child = spawn(process.execPath, [`${projectRoot}/scripts/vmoba-studio.mjs`, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  running.add(child);
  const lines: CliLine[] = [];
  const watchers = new Set<() => void>();
  let stdout = '';
  let stderr = '';
  let ended = false;
  createInterface({ input: child.stdout }).on('line', (line) => {
    stdout += `${line}\n`;
    if (line.startsWith('{"')) lines.push(JSON.parse(line) as CliLine);
    for (const watcher of [...watchers]) watcher();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const result = new Promise<CliResult>((resolve) =>
    child.on('close', (code, signal) => {
      ended = true;
      running.delete(child);
      for (const watcher of [...watchers]) watcher();
      resolve({ code, signal, lines, stdout, stderr });
    }),
  );
  const line = (matches: (line: CliLine) => boolean) =>
    new Promise<CliLine | undefined>((resolve) => {
      const look = () => {
        const found = lines.find(matches);
        if (!found && !ended) return;
        watchers.delete(look);
        resolve(found);
      };
      watchers.add(look);
      look();
    });
  return { child, lines, line, result };
}

export const runCli = (args: string[], env?: Record<string, string>): Promise<CliResult> => startCli(args, env).result;

/** The final facts of a render with --json. */
export function takeOf(result: CliResult): {
  latentHash: string;
  framesHash: string;
  resumed: { fromStep: number } | null;
} {
  const done = result.lines.find((line) => line.event === 'done');
  if (!done)
    throw new Error(
      `the render ended with ${result.code ?? result.signal}: ${result.stdout.slice(-500)}${result.stderr}`,
    );
  return done['take'] as ReturnType<typeof takeOf>;
}
