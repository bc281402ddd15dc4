import axe from 'axe-core';
import { afterEach, describe, expect, test } from 'vitest';
import { cdp, page } from 'vitest/browser';
import type { Screen } from '../../renderer/state/navigation.svelte.ts';
import type { Studio } from './support/studio.ts';
import { mountApp, openLive, openStudio } from './support/studio.ts';

/** What axe finds: the rule, and the elements. */
async function faults(rules?: string[]): Promise<string[]> {
  const { violations } = await axe.run(document.body, rules ? { runOnly: rules } : { runOnly: ['wcag2a', 'wcag2aa'] });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ target, failureSummary }) => `${id}: ${target.join(' ')}: ${failureSummary}`),
  );
}

/** Every screen with something on it: takes, a running render, waiting and failed ones, a toast. */
async function busyStudio(appearance: 'dark' | 'light'): Promise<Studio> {
  const studio = await openLive(6, { takes: 3, waiting: 4, settings: { appearance, reducedMotion: 'on' } });
  const failed = studio.world.addRender(studio.render.settings);
  studio.world.change(failed, { state: 'failed', error: { code: 'disk-full', message: 'Nothing fits any more.' } });
  await mountApp(studio);
  studio.app.toasts.show('A message', { label: 'Undo', run: () => {} });
  studio.app.toasts.error(new Error('and one of an error'));
  await document.fonts.ready;
  return studio;
}

describe.each(['dark', 'light'] as const)('the %s theme', (appearance) => {
  test.each([
    ['compose', 'Prompt'],
    ['live', 'Where a step goes'],
    ['queue', 'Waiting'],
    ['library', 'Favourites'],
    ['models', 'Installed'],
    ['settings', 'Shortcuts'],
  ] as [Screen, string][])('%s can be read and used by everyone', async (screen) => {
    const studio = await busyStudio(appearance);
    studio.app.navigation.go(screen);
    await expect.element(page.getByRole('main')).toHaveAccessibleName(new RegExp(screen, 'i'));
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(await faults()).toEqual([]);
  });

  test('the palette, over everything, can be read', async () => {
    const studio = await busyStudio(appearance);
    studio.app.paletteOpen = true;
    await expect.element(page.getByRole('dialog')).toBeVisible();
    expect(await faults(['color-contrast'])).toEqual([]);
  });
});

describe('the system’s wishes', () => {
  const wish = (name: 'prefers-color-scheme' | 'prefers-reduced-motion', value: string) =>
    (cdp() as unknown as { send(method: string, parameters: object): Promise<void> }).send(
      'Emulation.setEmulatedMedia',
      {
        features: [{ name, value }],
      },
    );
  afterEach(() => wish('prefers-color-scheme', ''));
  const root = document.documentElement;

  test('for colours are followed, also when they change', async () => {
    await wish('prefers-color-scheme', 'light');
    const studio = await openStudio({ settings: { appearance: 'system' } });
    await mountApp(studio);
    await expect.poll(() => root.dataset['theme']).toBe('light');
    const light = getComputedStyle(document.body).backgroundColor;
    await wish('prefers-color-scheme', 'dark');
    await expect.poll(() => root.dataset['theme']).toBe('dark');
    expect(getComputedStyle(document.body).backgroundColor).not.toBe(light);
    await studio.app.settings.update({ appearance: 'light' });
    await expect.poll(() => getComputedStyle(document.body).backgroundColor).toBe(light);
  });

  test('for less motion: nothing moves by itself, and nothing glides', async () => {
    await wish('prefers-reduced-motion', 'reduce');
    const studio = await openStudio({ takes: 2, settings: { reducedMotion: 'system' } });
    await mountApp(studio);
    await expect.poll(() => root.dataset['motion']).toBe('off');
    expect([...document.querySelectorAll('video')].map(({ autoplay }) => autoplay)).toEqual([false]);
    // What a library brings along is held as well.
    document.body.append(
      Object.assign(document.createElement('i'), { style: 'transition: color 1s; animation: x 1s' }),
    );
    const gliding = [...document.querySelectorAll('*')].filter((element) => {
      const { transitionDuration, animationDuration } = getComputedStyle(element);
      return `${transitionDuration}, ${animationDuration}`.split(', ').some((duration) => duration !== '0s');
    });
    expect(gliding).toEqual([]);
    studio.app.navigation.go('library');
    await page
      .getByRole('button', { name: /^Open “/ })
      .first()
      .hover();
    expect(document.querySelectorAll('video').length).toBe(0);
    await studio.app.settings.update({ reducedMotion: 'off' });
    await page
      .getByRole('button', { name: /^Open “/ })
      .nth(1)
      .hover();
    await expect.poll(() => document.querySelectorAll('video').length).toBe(1);
    expect(root.dataset['motion']).toBe('on');
  });
});
