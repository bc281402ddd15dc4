/** The same code as a bundle: child processes find their entries beside the main file, as in a packaged application. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'vite';
import { afterAll, expect, test } from 'vitest';
import { projectRoot } from '../support/cli.ts';
import { probe } from '../support/clips.ts';
import { makeRandomModel } from '../support/models.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-bundle-'));
/** Inside the checkout, where node_modules and the addon are found. */
const bundle = join(projectRoot, 'build', 'test-bundle');

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  rmSync(bundle, { recursive: true, force: true });
});

test('a bundled command line renders with bundled child processes', async () => {
  const main = join(projectRoot, 'main');
  await build({
    root: projectRoot,
    configFile: false,
    logLevel: 'error',
    build: {
      ssr: true,
      outDir: bundle,
      emptyOutDir: true,
      rollupOptions: {
        input: {
          main: join(main, 'cli/main.ts'),
          engineProcess: join(main, 'engine/engineProcess.ts'),
          encodeProcess: join(main, 'studio/encode/encodeProcess.ts'),
        },
      },
    },
  });
  const out = join(folder, 'clip.webm');
  const model = makeRandomModel(join(folder, 'tiny'), 'tiny');
  const args = [join(bundle, 'main.js'), 'render', 'a ball', '--model', model, '--out', out];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect(stderr).not.toMatch(/error/i);
  expect(status).toBe(0);
  expect(probe(out)).toMatchObject({ codec_name: 'vp9', nb_read_frames: '9' });
});
