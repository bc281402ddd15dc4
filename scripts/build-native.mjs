/**
 * Configures and builds the C++ engine, its tools and the Node addon into build/release.
 *   npm run build:native [-- --tests | --sanitize [--emulation]] [--cuda] [--target NAME]
 * The sanitized build leaves the emulated CUDA kernels out unless asked: they double its time.
 * The CUDA backend is compiled where a GPU's driver and nvcc are found, and with --cuda.
 */
import { availableParallelism, totalmem } from 'node:os';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { hasCommand, main, root, run } from './lib/run.mjs';

/** One compiler per core, and at least 1.5 GB for each. */
const jobs = String(Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 1.5e9))));

const { values } = parseArgs({
  options: {
    tests: { type: 'boolean' },
    sanitize: { type: 'boolean' },
    emulation: { type: 'boolean' },
    cuda: { type: 'boolean' },
    target: { type: 'string', multiple: true },
  },
});

await main(() => {
  const folder = values.sanitize ? 'build/sanitize' : 'build/release';
  const settings = values.sanitize
    ? [
        '-DVMOBA_ROOMS=kernels;native/weights;native/backends;native/engine;native/tools',
        '-DVMOBA_SANITIZE=ON',
        `-DVMOBA_EMULATION=${values.emulation ? 'ON' : 'OFF'}`,
        '-DVMOBA_TESTS=ON',
        '-DVMOBA_ADDON=OFF',
        '-DCMAKE_BUILD_TYPE=None',
      ]
    : [
        `-DVMOBA_TESTS=${values.tests || testsWereOn(folder) ? 'ON' : 'OFF'}`,
        '-DVMOBA_ADDON=ON',
        `-DVMOBA_CUDA=${values.cuda || (hasCommand('nvcc') && hasCommand('nvidia-smi')) ? 'ON' : 'OFF'}`,
        '-DCMAKE_BUILD_TYPE=Release',
      ];
  run('cmake', ['-S', '.', '-B', folder, '-G', 'Ninja', '-Wno-dev', '--log-level=WARNING', ...settings]);
  const targets = (values.target ?? []).flatMap((target) => ['--target', target]);
  run('cmake', ['--build', folder, '-j', jobs, ...targets]);
});

/** A plain rebuild keeps the tests of an earlier configuration. */
function testsWereOn(folder) {
  return existsSync(join(root, folder, 'CTestTestfile.cmake'));
}
