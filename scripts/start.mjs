/**
 * Opens the studio: as a desktop app where Electron's binary is present, otherwise served to the browser.
 *   npm start
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { electronBinary } from './lib/electron-binary.mjs';
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
