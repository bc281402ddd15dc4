/** Installs what the project needs: system packages (where allowed) and npm packages. `--test` adds what only tests need. */
import { ensureNodeModules } from './lib/node-modules.mjs';
import { main } from './lib/run.mjs';
import { ensureSystemPackages } from './lib/system-packages.mjs';

await main(() => {
  ensureSystemPackages(process.argv.includes('--test') ? ['build', 'test'] : ['build']);
  ensureNodeModules();
  console.log('Everything needed is installed.');
});
