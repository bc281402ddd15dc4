#!/usr/bin/env node
/**
 * Starts the command line from a checkout. The sources are TypeScript that the project's pinned Node runs as they are; an
 * older Node hands over to it.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as nodeModule from 'node:module'; // an older Node lacks enableCompileCache: no named import
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const entry = join(root, 'main', 'cli', 'main.ts');
const major = Number(process.versions.node.split('.')[0]);

if (major >= 24) {
  // Compiled once, for this process and its children: a third off the start of every command.
  process.env.NODE_COMPILE_CACHE ??= join(root, 'node_modules', '.cache', 'compile');
  nodeModule.enableCompileCache(process.env.NODE_COMPILE_CACHE);
  await import(entry);
} else {
  const pinned = join(root, 'node_modules', '.bin', 'node');
  if (!existsSync(pinned)) {
    console.error('vmoba-studio needs its packages first: run npm ci (or npm run demo) in its folder.');
    process.exit(1);
  }
  const child = spawn(pinned, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, VMOBA_LAUNCHER_PID: String(process.pid) },
  });
  // The terminal sends Ctrl-C to the whole group; the child decides what it means and this process reports its answer.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => signal !== 'SIGINT' && child.kill(signal));
  child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 1)));
}
