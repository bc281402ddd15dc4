/**
 * From a fresh clone to a clip: installs what is missing, builds the engine, renders a prompt, says where the file is.
 *   npm run demo -- "a red ball bounces on a blue floor" [options of vmoba-studio render]
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ensureNodeModules } from './lib/node-modules.mjs';
import { main, projectNode, root, run } from './lib/run.mjs';
import { ensureSystemPackages } from './lib/system-packages.mjs';

const embedded = join('resources', 'models', 'nano');
const random = join('build', 'demo', 'nano-random');

await main(() => {
  const [prompt = 'a red ball bounces on a blue floor', ...options] = process.argv.slice(2);
  ensureSystemPackages(['build']);
  ensureNodeModules();
  console.log('Building the engine');
  run(projectNode(), ['scripts/build-native.mjs']);
  const model = existsSync(join(root, embedded, 'model.json')) ? embedded : randomModel();
  console.log(`Rendering "${prompt}"`);
  run(projectNode(), ['scripts/vmoba-studio.mjs', 'render', prompt, '--model', model, ...options]);
});

/** A stand-in where no trained model is in the tree. */
function randomModel() {
  console.log('There is no trained model in resources/models/nano: random weights stand in, so the clip shows noise.');
  if (!existsSync(join(root, random, 'model.json'))) {
    const tool = join('build', 'release', 'native', 'tools', 'vmoba-native');
    const tokenizer = join('tests', 'fixtures', 'tokenizer', 'spiece.model');
    run(tool, ['random-model', random, '--preset', 'nano', '--tokenizer', tokenizer]);
  }
  return random;
}
