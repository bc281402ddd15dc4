/** Every screen in both themes: nothing an accessibility checker objects to, and a picture of it to look at (build/screens). */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import type { Page } from '@playwright/test';
import { projectRoot } from '../support/cli.ts';
import { expect, test } from './support/studio.ts';

const folder = join(projectRoot, 'build/screens');
const sizes = [
  { width: 1280, height: 800 },
  { width: 1920, height: 1080 },
];

const screens: Record<string, (page: Page) => Promise<void>> = {
  compose: async (page) => expect(page.getByText('Arithmetic speed-up')).toBeVisible(),
  live: async (page) => expect(page.getByTestId('measured')).toBeVisible(),
  queue: async (page) => expect(page.getByText('a blue square').first()).toBeVisible(),
  library: async (page) => expect(page.getByRole('button', { name: /^Open/ }).first()).toBeVisible(),
  models: async (page) => expect(page.getByRole('heading', { name: 'Installed' })).toBeVisible(),
  settings: async (page) => expect(page.getByRole('heading', { name: 'Shortcuts' })).toBeVisible(),
};

const overlays: Record<string, (page: Page) => Promise<void>> = {
  palette: async (page) => {
    await page.keyboard.press('Control+k');
    await expect(page.getByPlaceholder(/Type a command/)).toBeVisible();
  },
  details: async (page) => {
    await page.getByRole('button', { name: /^Open/ }).first().click();
    await expect(page.getByRole('button', { name: 'Use these settings' })).toBeVisible();
  },
  compare: async (page) => {
    await page.getByRole('button', { name: 'Compare' }).click();
    await expect(page.getByRole('dialog').locator('video')).toHaveCount(2);
  },
};

async function check(page: Page, name: string, theme: string) {
  for (const size of sizes) {
    await page.setViewportSize(size);
    await page.waitForTimeout(250);
    await page.screenshot({ path: join(folder, `${name}-${theme}-${size.width}x${size.height}.png`) });
  }
  const { violations } = await new AxeBuilder({ page }).analyze();
  const found = violations.map(({ id, nodes }) => ({
    screen: name,
    theme,
    id,
    nodes: nodes.map(({ html, any }) => `${html.slice(0, 160)} ${any[0]?.message ?? ''}`),
  }));
  return found;
}

test('no screen has a violation, in either theme', async ({ page, studio, open }) => {
  test.setTimeout(400_000);
  mkdirSync(folder, { recursive: true });
  await studio.render();
  await studio.render({ prompt: 'a green square moves to the right', seed: '8' });
  await studio.render({ policy: { version: 1, name: 'dense', mode: 'dense', scope: 'query_head' } });
  const waiting = await studio.settings({ prompt: 'a blue square' });
  await studio.with(async (client) => {
    await client.call('queue.pause');
    await client.call('renders.createSweep', { settings: waiting, seeds: { count: 3 } });
  });
  const found: unknown[] = [];
  for (const theme of ['dark', 'light'] as const) {
    await page.emulateMedia({ colorScheme: theme, reducedMotion: 'reduce' });
    await open(page);
    // Live shows the statistics of a take.
    await page.goto(`${new URL(studio.url).origin}/#/library`);
    await page.getByRole('button', { name: /^Open “a green/ }).click();
    await page.getByRole('button', { name: 'Statistics' }).click();
    for (const [name, ready] of Object.entries(screens)) {
      await page.goto(`${new URL(studio.url).origin}/#/${name}`);
      if (name === 'library') {
        const back = page.getByRole('button', { name: 'Library', exact: true });
        if (await back.isVisible()) await back.click();
      }
      await ready(page);
      found.push(...(await check(page, name, theme)));
      await page.setViewportSize({ width: 1280, height: 800 });
    }
    await page.goto(`${new URL(studio.url).origin}/#/library`);
    await overlays['palette']?.(page);
    found.push(...(await check(page, 'palette', theme)));
    await page.keyboard.press('Escape');
    await overlays['details']?.(page);
    found.push(...(await check(page, 'details', theme)));
    await overlays['compare']?.(page);
    found.push(...(await check(page, 'compare', theme)));
    await page.keyboard.press('Escape');
  }
  expect(found).toEqual([]);
});
