/**
 * Every screen in both themes: nothing an accessibility checker objects to, nothing Tab misses.
 * `npm run screens` also takes a picture of each in two sizes, into build/screens, to be looked at.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Page } from '@playwright/test';
import { projectRoot } from '../support/cli.ts';
import { unreachedByTab } from './support/keyboard.ts';
import { expect, go, test } from './support/studio.ts';

const folder = join(projectRoot, 'build/screens');
const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const usual = { width: 1280, height: 800 };
const sizes = process.env['VMOBA_SCREENS'] ? [{ width: 1920, height: 1080 }, usual] : [];

/** In the order in which they are come by; each brings its screen and waits until it is whole. */
const screens: Record<string, (page: Page) => Promise<void>> = {
  compose: async (page) => {
    await go(page, 'Compose');
    await expect(page.getByText('Arithmetic speed-up')).toBeVisible();
  },
  queue: async (page) => {
    await go(page, 'Queue');
    await expect(page.getByText('a blue square').first()).toBeVisible();
  },
  models: async (page) => {
    await go(page, 'Models');
    await expect(page.getByRole('button', { name: 'Use in Compose' })).toBeVisible();
  },
  settings: async (page) => {
    await go(page, 'Settings');
    await expect(page.getByRole('heading', { name: 'Shortcuts' })).toBeVisible();
  },
  library: async (page) => {
    await go(page, 'Library');
    await expect(page.getByRole('button', { name: /^Open/ })).toHaveCount(2);
  },
  details: async (page) => {
    await page.getByRole('button', { name: /^Open/ }).last().click();
    await expect(page.getByRole('button', { name: 'Use these settings' })).toBeVisible();
  },
  live: async (page) => {
    await page.getByRole('button', { name: 'Statistics' }).click();
    await expect(page.getByTestId('measured')).toHaveText(/^\d/);
  },
};

const overlays: Record<string, (page: Page) => Promise<void>> = {
  palette: async (page) => {
    await page.keyboard.press('Control+k');
    await expect(page.getByRole('option').first()).toBeVisible();
  },
  compare: async (page) => {
    await go(page, 'Library');
    await page.getByRole('button', { name: 'Compare' }).click();
    await expect(page.getByRole('dialog').locator('video')).toHaveCount(2);
  },
};

async function photograph(page: Page, name: string) {
  for (const size of sizes) {
    await page.setViewportSize(size);
    await page.evaluate('new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))');
    await page.screenshot({ path: join(folder, `${name}-${size.width}x${size.height}.png`) });
  }
}

async function violations(page: Page): Promise<unknown[]> {
  if (!(await page.evaluate('Boolean(window.axe)'))) await page.evaluate(axeSource);
  const options = {
    resultTypes: ['violations'],
    preload: false,
    iframes: false,
    selectors: false,
  };
  return page.evaluate(`axe.run(document, ${JSON.stringify(options)}).then(({ violations }) =>
    violations.map(({ id, nodes }) => ({
      id,
      nodes: nodes.map(({ html, failureSummary }) => [html.slice(0, 160), failureSummary]),
    })))`);
}

test('every screen is whole for those who see it, hear it, or type', async ({ page, studio, open }) => {
  test.setTimeout(480_000);
  mkdirSync(folder, { recursive: true });
  const small = { frames: 9, steps: 4, width: 64, height: 64 };
  await studio.render(small);
  await studio.render({
    ...small,
    policy: { version: 1, name: 'dense', mode: 'dense', scope: 'query_head' },
  });
  const waiting = await studio.settings({ prompt: 'a blue square' });
  await studio.with(async (client) => {
    await client.call('queue.pause');
    await client.call('renders.createSweep', { settings: waiting, seeds: { count: 3 } });
  });
  const wrong: unknown[] = [];
  const look = async (name: string, theme: string) => {
    await photograph(page, `${name}-${theme}`);
    const found = await violations(page);
    if (found.length > 0) wrong.push({ name, theme, found });
  };
  for (const theme of ['dark', 'light']) {
    await page.emulateMedia({ colorScheme: theme as 'dark' | 'light', reducedMotion: 'reduce' });
    await open(page);
    for (const [name, show] of Object.entries(screens)) {
      await show(page);
      await look(name, theme);
      if (theme === 'light') continue;
      const missed = await unreachedByTab(page);
      if (missed.length > 0) wrong.push({ name, missed });
    }
    for (const [name, show] of Object.entries(overlays)) {
      await show(page);
      await look(name, theme);
      await page.keyboard.press('Escape');
      await expect(page.getByRole('dialog')).toBeHidden();
    }
  }
  expect(wrong).toEqual([]);
});

test('charts follow a theme that changes while they are shown', async ({ page, studio, open }) => {
  await studio.render({ frames: 9, steps: 4, width: 64, height: 64 });
  await page.emulateMedia({ colorScheme: 'dark' });
  await open(page);
  await go(page, 'Library');
  await page.getByRole('button', { name: /^Open/ }).click();
  await page.getByRole('button', { name: 'Statistics' }).click();
  await expect(page.getByRole('img', { name: /^Seconds of each step/ }).locator('canvas')).toBeVisible();
  /** Whether the chart has a colour of the page's theme, of linear layers, which every step has. */
  const ofTheTheme = () =>
    page.evaluate(`(() => {
      const canvas = document.querySelector('[aria-label^="Seconds of each step"] canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const hex = getComputedStyle(document.documentElement).getPropertyValue('--linears').trim();
      const [r, g, b] = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
      return Array.from({ length: data.length / 4 }, (_, index) => 4 * index).some(
        (at) => data[at] === r && data[at + 1] === g && data[at + 2] === b,
      );
    })()`);
  for (const colorScheme of ['dark', 'light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    await expect(page.locator('html')).toHaveAttribute('data-theme', colorScheme);
    await expect.poll(ofTheTheme, colorScheme).toBe(true);
  }
});
