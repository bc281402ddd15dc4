/**
 * How the interface behaves under load, measured in the browser that shows it:
 *   start      navigation until the library of 10,000 renders can be used
 *   scrolling  the library, while the engine renders on all cores
 *   Live       a render being watched
 * Long tasks (above 50 ms) and layout shifts come from the browser's own observers.
 *   npm run bench:app [-- --renders 10000 --runs 5]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright';

const { values } = parseArgs({
  options: { renders: { type: 'string', default: '10000' }, runs: { type: 'string', default: '5' } },
});
const renders = Number(values.renders);
const runs = Number(values.runs);

const { fillLibrary } = await import('../tests/support/library.ts');
const { libraryPaths } = await import('../main/studio/library/folder.ts');
const { ServedStudio } = await import('../tests/e2e/support/servedStudio.ts');
const { ensureModel } = await import('../tests/e2e/support/model.ts');

const folder = mkdtempSync(join(tmpdir(), 'vmoba-bench-'));
const library = join(folder, 'library');
const studio = new ServedStudio(library);

/** In the page, before its own scripts: what the browser sees of long tasks and shifts. */
function observe() {
  globalThis.seen = { tasks: [], shifts: [] };
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) globalThis.seen.tasks.push(entry.duration);
  }).observe({ type: 'longtask', buffered: true });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) globalThis.seen.shifts.push(entry.value);
  }).observe({ type: 'layout-shift', buffered: true });
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? 0;
const rows = [];
const report = (what, value, bar) => rows.push({ what, value, bar });

ensureModel();
await studio.start();
await studio.stop();
fillLibrary(libraryPaths(library), renders);
await studio.start();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});
try {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  await context.addInitScript(observe);
  const page = await context.newPage();
  await studio.with((client) => client.call('queue.pause'));
  await page.goto(studio.url);

  const starts = [];
  for (let run = 0; run < runs; run++) {
    const { origin } = new URL(studio.url);
    await page.goto('about:blank');
    const began = performance.now();
    await page.goto(`${origin}/#/library`);
    await page.getByRole('button', { name: /^Open/ }).first().waitFor();
    starts.push(performance.now() - began);
  }
  report(`interactive with ${renders} renders, median of ${runs}`, `${Math.round(median(starts))} ms`, '1500 ms');

  const seen = () => page.evaluate(() => globalThis.seen);
  const clear = () => page.evaluate(() => void (globalThis.seen = { tasks: [], shifts: [] }));
  const summary = async (name) => {
    const { tasks, shifts } = await seen();
    report(
      `${name}: longest task`,
      tasks.length === 0 ? 'below 50 ms' : `${Math.round(Math.max(...tasks))} ms (${tasks.length} above 50 ms)`,
      '50 ms',
    );
    report(`${name}: layout shift`, shifts.reduce((sum, shift) => sum + shift, 0).toFixed(4), '0');
  };

  // The engine takes every core at its lower priority while the library is scrolled and Live is watched.
  const settings = await studio.settings({ steps: 200, frames: 33, width: 192, height: 192 });
  const render = await studio.with(async (client) => {
    const created = await client.call('renders.create', { settings, place: 'next' });
    await client.call('queue.resume');
    return created;
  });
  await page.waitForTimeout(3000);
  await clear();
  for (let turn = 0; turn < 40; turn++) {
    await page.mouse.move(640, 500);
    await page.mouse.wheel(0, 900);
    await page.waitForTimeout(60);
  }
  await summary('library scrolling while rendering');
  await page.goto(`${new URL(studio.url).origin}/#/live`);
  await page.getByTestId('measured').waitFor();
  await page.waitForTimeout(1500);
  await clear();
  await page.waitForTimeout(10_000);
  await summary('Live while rendering');
  await studio.with((client) => client.call('renders.cancel', { id: render.id }));
} finally {
  await browser.close();
  await studio.stop();
  rmSync(folder, { recursive: true, force: true });
}

console.log(`${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} threads; Chromium ${browser.version()}`);
for (const { what, value, bar } of rows) console.log(`${what.padEnd(58)} ${value.padEnd(28)} bar ${bar}`);
