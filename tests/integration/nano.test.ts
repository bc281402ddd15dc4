/** The embedded model as installed: what it says of itself, and that the native engine draws with it what a prompt says. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { endStartedClis, projectRoot, runCli } from '../support/cli.ts';
import { startServe } from '../support/served.ts';
import { colourOfThing, hueOf } from '../support/pictures.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-colours-'));
afterAll(() => {
  endStartedClis();
  rmSync(folder, { recursive: true, force: true });
});

const side = 48;
// Hues of training/world.py; each may be off by 35 degrees, and the nearest two are 107 apart.
const hues = { red: 0, green: 128, blue: 228 };

test('a prompt decides the colour of what is drawn', async () => {
  const batch = join(folder, 'prompts.jsonl');
  const lines = Object.keys(hues).map((colour) => ({
    id: colour,
    prompt: `a large ${colour} ball on a black background`,
    seed: 3,
  }));
  writeFileSync(batch, lines.map((line) => JSON.stringify(line)).join('\n'));
  const model = join(projectRoot, 'resources', 'models', 'nano');
  const options = ['--size', `${side}x${side}`, '--frames', '9', '--steps', '8', '--raw', '--out-dir', folder];
  expect(await runCli(['render', '--batch', batch, '--model', model, ...options])).toMatchObject({ code: 0 });
  for (const [colour, hue] of Object.entries(hues)) {
    const seen = colourOfThing(readFileSync(join(folder, `${colour}.rgb`)), side, side);
    expect(seen, `${colour}: something stands out`).not.toBeNull();
    if (seen === null) continue;
    const off = Math.abs(((hueOf(seen) - hue + 540) % 360) - 180);
    expect(off, `${colour} came out as rgb(${seen.map(Math.round).join(', ')})`).toBeLessThan(35);
  }
});

test('the command line says what Nano was made for and what it knows', async () => {
  const library = join(folder, 'library');
  const { code, stdout } = await runCli(['models', 'show', 'nano', '--library', library]);
  expect(code).toBe(0);
  expect(stdout).toMatch(/^licence +GPL-3\.0-or-later$/mu);
  expect(stdout).toMatch(/^sides +48 to 128 pixels/mu);
  expect(stdout).toMatch(/^colours +red, .*white$/mu);
  expect(stdout).toMatch(/^motions +.*spin/mu);
  expect(await runCli(['models', 'show', 'nono', '--library', library])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('models list'),
  });
  // A studio elsewhere says the same of it, though its folder need not lie here.
  const { url } = await startServe(library);
  expect(await runCli(['models', 'show', 'nano', '--connect', url])).toMatchObject({ code: 0, stdout });
});
