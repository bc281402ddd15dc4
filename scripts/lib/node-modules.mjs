/** Installs the npm packages when what is installed differs from the lock file. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, run } from './run.mjs';

const fits = (list, value) =>
  !list || list.includes(value) || (list.every((item) => item.startsWith('!')) && !list.includes(`!${value}`));

/** True when a package of the lock file that fits this machine is absent or has another version. */
export function nodeModulesAreStale() {
  const installedFile = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installedFile)) return true;
  const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(installedFile, 'utf8')).packages;
  return Object.entries(wanted).some(
    ([path, item]) =>
      path !== '' &&
      !item.optional &&
      fits(item.os, process.platform) &&
      fits(item.cpu, process.arch) &&
      installed[path]?.version !== item.version,
  );
}

export function ensureNodeModules() {
  if (!nodeModulesAreStale()) return;
  console.log('Installing npm packages');
  // The system's Node may be older than some packages want; everything afterwards runs on the pinned one.
  run('npm', ['ci', '--loglevel=error', '--no-audit', '--no-fund'], { spawn: { shell: process.platform === 'win32' } });
}
