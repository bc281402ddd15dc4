/** npm start: the desktop app where Electron's binary is, otherwise a word about it and the same studio in the browser. */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { projectRoot } from '../support/cli.ts';
import { until } from '../support/processes.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-start-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const env = { ...process.env, ELECTRON_OVERRIDE_DIST_PATH: folder, PATH: `${folder}:${process.env['PATH'] ?? ''}` };
const script = (name: string, text: string) =>
  writeFileSync(join(folder, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
const start = join(projectRoot, 'scripts/start.mjs');

test('without the binary it says so and opens the served studio in the browser', async () => {
  script('xdg-open', `echo "$1" > ${folder}/opened`);
  const studio = spawn(process.execPath, [start, '--port', '0', '--library', join(folder, 'library')], {
    env,
    detached: true,
  });
  const said = await new Promise<string>((resolve) => {
    let all = '';
    studio.stdout.on('data', (data: Buffer) => {
      all += data.toString();
      if (/http:\/\/127\.0\.0\.1:\d+\//.test(all)) resolve(all);
    });
    studio.on('close', () => resolve(all));
  });
  expect(await until(() => existsSync(join(folder, 'opened')), 20_000)).toBe(true);
  process.kill(-(studio.pid as number), 'SIGTERM');
  expect(said).toMatch(
    /Electron's binary is not on this machine[^]*opens in the browser instead[^]*http:\/\/127\.0\.0\.1:\d+/,
  );
});

test('with it, it opens the app', () => {
  script('electron', 'echo "opened $1"');
  const { stdout } = spawnSync(process.execPath, [start], { env, encoding: 'utf8' });
  expect(stdout).toContain(`opened ${projectRoot.replace(/\/$/, '')}`);
});
