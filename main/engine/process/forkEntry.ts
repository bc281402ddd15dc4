/**
 * Finds the file a child process starts with, in the three ways the studio runs: from TypeScript sources, from a bundle, and
 * inside a packaged application.
 */
import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * @param importMetaUrl `import.meta.url` of the caller.
 * @param source The entry beside the caller, as a TypeScript file name such as `./engineProcess.ts`. A bundle emits it as
 *   `engineProcess.js` beside its main file; shared chunks lie one folder below.
 */
export function forkEntry(importMetaUrl: string, source: string): string {
  const here = fileURLToPath(importMetaUrl);
  if (here.endsWith('.ts')) return join(dirname(here), source);
  const name = basename(source).replace(/\.ts$/, '.js');
  const candidates = [join(dirname(here), name), join(dirname(dirname(here)), name)];
  const found = candidates.find((path) => existsSync(path));
  if (!found) throw new Error(`${name} is missing beside ${here}: the build emitted no entry for it`);
  return found;
}
