/**
 * The pictures of the README: Compose, Live and Library as they are after a few renders of Nano, into docs/pictures.
 *   npm run pictures
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright';
import { root } from './lib/run.mjs';

const { ServedStudio } = await import('../tests/e2e/support/servedStudio.ts');
const pictures = join(root, 'docs', 'pictures');
mkdirSync(pictures, { recursive: true });
const folder = mkdtempSync(join(tmpdir(), 'vmoba-pictures-'));
const studio = new ServedStudio(join(folder, 'library'));
const gallery = JSON.parse(readFileSync(join(root, 'resources', 'gallery', 'gallery.json'), 'utf8'));

await studio.start();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});
try {
  const size = { width: 64, height: 64, frames: 17, fps: 12, steps: 20, guidanceScale: 4, shift: 4 };
  for (const { prompt, settings } of gallery.slice(1)) await studio.render({ ...size, prompt, seed: settings.seed });
  await studio.render({ ...size, width: 128, height: 128, prompt: gallery[0].prompt, seed: '1' });

  const page = await browser.newPage({
    viewport: { width: 1280, height: 800 },
    colorScheme: 'dark',
    reducedMotion: 'reduce',
  });
  const shoot = (name) => page.screenshot({ path: join(pictures, `${name}.png`) });
  const go = (screen) => page.getByRole('navigation', { name: 'Screens' }).getByRole('link', { name: screen }).click();
  await page.goto(studio.url);
  await page.getByLabel('Prompt', { exact: true }).fill(gallery[0].prompt);
  await page.getByRole('radio', { name: /What .* can do/ }).click();
  await page.getByText('Arithmetic speed-up').waitFor();
  await page.waitForTimeout(2000);
  await shoot('compose');
  await go('Library');
  await page
    .getByRole('button', { name: /^Open/ })
    .nth(gallery.length - 1)
    .waitFor();
  await page.waitForTimeout(1000);
  await shoot('library');
  await page.getByRole('button', { name: /^Open/ }).first().click();
  await page.getByRole('button', { name: 'Statistics' }).click();
  await page.getByTestId('measured').getByText(/\d/).waitFor();
  await page.getByRole('radio', { name: 'Received attention' }).click();
  await page.waitForTimeout(2000);
  await shoot('live');
} finally {
  await browser.close();
  await studio.stop();
  rmSync(folder, { recursive: true, force: true });
}
