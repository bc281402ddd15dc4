/**
 * Opens the studio: as a desktop app where Electron's binary is present, otherwise served to the browser.
 *   npm start
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureNodeModules } from './lib/node-modules.mjs';
import { main, projectNode, root, run } from './lib/run.mjs';

await main(() => {
  ensureNodeModules();
  if (!existsSync(join(root, 'build', 'release', 'native', 'addon', 'vmoba.node'))) {
    console.log('Building the engine');
    run(projectNode(), ['scripts/build-native.mjs']);
  }
  if (!existsSync(join(root, 'out', 'renderer', 'index.html'))) {
    console.log('Building the interface');
    run(join(root, 'node_modules', '.bin', 'electron-vite'), ['build']);
  }
  const electron = electronBinary();
  if (electron) return run(electron, [root]);
  console.log("Electron's binary is not on this machine (npx install-electron fetches it where the network allows).");
  console.log('The same studio opens in the browser instead.\n');
  return run(projectNode(), ['scripts/vmoba-studio.mjs', 'serve', '--open', ...process.argv.slice(2)]);
});

/** Looked for, never downloaded: asking Electron's package itself would start a download. */
function electronBinary() {
  const folder = process.env.ELECTRON_OVERRIDE_DIST_PATH ?? join(root, 'node_modules', 'electron', 'dist');
  const nameFile = join(root, 'node_modules', 'electron', 'path.txt');
  const usual =
    { darwin: 'Electron.app/Contents/MacOS/Electron', win32: 'electron.exe' }[process.platform] ?? 'electron';
  const path = join(folder, existsSync(nameFile) ? readFileSync(nameFile, 'utf8').trim() : usual);
  return existsSync(path) ? path : null;
}
