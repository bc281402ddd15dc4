import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './run.mjs';

/** Electron's binary, or null. Looked for, never downloaded: asking Electron's package itself would start a download. */
export function electronBinary() {
  const folder = process.env.ELECTRON_OVERRIDE_DIST_PATH ?? join(root, 'node_modules', 'electron', 'dist');
  const nameFile = join(root, 'node_modules', 'electron', 'path.txt');
  const usual =
    { darwin: 'Electron.app/Contents/MacOS/Electron', win32: 'electron.exe' }[process.platform] ?? 'electron';
  const path = join(folder, existsSync(nameFile) ? readFileSync(nameFile, 'utf8').trim() : usual);
  return existsSync(path) ? path : null;
}
