/** A served studio for one test, and pages that look at it. Whatever a page asks of another origin fails the test. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test as base, expect, type Page } from '@playwright/test';
import { ServedStudio } from './servedStudio.ts';

interface Fixtures {
  /** Environment of the studio's process. */
  env: Record<string, string>;
  studio: ServedStudio;
  /** A page that has signed in. */
  app: Page;
  /** Signs a page in and waits for the interface. */
  open: (page: Page, hash?: string) => Promise<void>;
}

export const test = base.extend<Fixtures>({
  env: [{}, { option: true }],
  studio: async ({ env }, use) => {
    const folder = mkdtempSync(join(tmpdir(), 'vmoba-e2e-'));
    const studio = new ServedStudio(join(folder, 'library'), env);
    await studio.start();
    await use(studio);
    await studio.stop();
    rmSync(folder, { recursive: true, force: true });
  },
  open: async ({ studio }, use) => {
    const strays: string[] = [];
    const complaints: string[] = [];
    const watched = new WeakSet<Page>();
    await use(async (page, hash = '') => {
      const { origin } = new URL(studio.url);
      if (!watched.has(page)) {
        watched.add(page);
        page.on('request', (request) => {
          const url = request.url();
          if (!url.startsWith(`${new URL(studio.url).origin}/`) && !/^(data|blob):/.test(url)) strays.push(url);
        });
        page.on('console', (message) => {
          if (message.type() === 'error' && !/WebSocket|ERR_CONNECTION_REFUSED/.test(message.text()))
            complaints.push(message.text());
        });
        page.on('pageerror', (error) => complaints.push(error.message));
      }
      await page.goto(studio.url);
      if (hash !== '') await page.goto(`${origin}/#/${hash}`);
      await expect(page.getByRole('navigation', { name: 'Screens' })).toBeVisible();
    });
    expect({ strays, complaints }).toEqual({ strays: [], complaints: [] });
  },
  app: async ({ page, open }, use) => {
    await open(page);
    await use(page);
  },
});

export { expect };

/** Goes to a screen as a person does. */
export const go = (page: Page, screen: string) =>
  page.getByRole('navigation', { name: 'Screens' }).getByRole('link', { name: screen }).click();
