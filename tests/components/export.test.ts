import { describe, expect, test } from 'vitest';
import { page, userEvent } from 'vitest/browser';
import type { ClipExport } from '../../contract/exports.ts';
import { mountApp, openStudio } from './support/studio.ts';

describe('the export menu', () => {
  const trigger = () => page.getByRole('button', { name: 'Export', exact: true });
  const items = () =>
    page
      .getByRole('menuitem')
      .elements()
      .map((item) => (item as HTMLElement).innerText.replace(/\s+/g, ' '));
  const messages = page.getByRole('region', { name: 'Messages' });
  const path = '/home/someone/VMoBA Studio/exports/clip.gif';

  async function openedTake(fileExists = true) {
    const studio = await openStudio({ takes: 1 });
    const [take] = studio.world.takes;
    if (!take) throw new Error('There is no take.');
    take.fileExists = fileExists;
    await mountApp(studio);
    studio.app.navigation.go('library');
    studio.app.opened = take;
    await expect.element(trigger()).toBeVisible();
    const tell = (changes: Partial<ClipExport>) => {
      const [started] = studio.world.exports;
      if (!started) throw new Error('Nothing is exported.');
      studio.world.publish('exports.changed', { ...Object.assign(started, changes) });
    };
    return { studio, take, tell };
  }

  test('says what each format is for; the chosen one is made, and told where it is', async () => {
    const { studio, take, tell } = await openedTake();
    await trigger().click();
    await expect.poll(items).toEqual(['MP4 H.264, plays everywhere', 'GIF Loops in any page']);
    await page.getByRole('menuitem', { name: /^GIF/ }).click();
    await expect.poll(() => studio.world.exports).toMatchObject([{ takeId: take.id, format: 'gif', state: 'running' }]);
    expect(items()).toEqual([]);
    const progress = page.getByRole('contentinfo').getByText(/^Exporting as/);
    await expect.element(progress).toHaveTextContent('Exporting as GIF · 0/33');
    tell({ frames: 12 });
    await expect.element(progress).toHaveTextContent('Exporting as GIF · 12/33');
    studio.world.advance();
    await expect.element(messages.getByText(`Exported to ${path}`)).toBeVisible();
    await expect.element(progress).not.toBeInTheDocument();
  });

  test('works by keyboard: the arrows choose, Escape changes nothing, the focus comes back', async () => {
    const { studio } = await openedTake();
    trigger().element().focus();
    await userEvent.keyboard('{Enter}');
    await expect.element(page.getByRole('menuitem', { name: /^MP4/ })).toHaveFocus();
    await userEvent.keyboard('{Escape}');
    await expect.element(trigger()).toHaveFocus();
    expect([studio.world.exports, studio.app.opened === null]).toEqual([[], false]);
    await userEvent.keyboard('{Enter}');
    await expect.element(page.getByRole('menuitem', { name: /^MP4/ })).toHaveFocus();
    await userEvent.keyboard('{ArrowDown}{Enter}');
    await expect.poll(() => studio.world.exports.map(({ format }) => format)).toEqual(['gif']);
    await expect.element(trigger()).toHaveFocus();
  });

  test('an export that fails is told with its reason, and no longer counted', async () => {
    const { tell } = await openedTake();
    await trigger().click();
    await page.getByRole('menuitem', { name: /^GIF/ }).click();
    await expect.element(page.getByText('Exporting as GIF · 0/33')).toBeVisible();
    tell({ state: 'failed', error: { code: 'disk-full', message: 'Writing clip.gif: the disk is full.' } });
    await expect.element(messages.getByRole('alert')).toMatchTextContent(/Writing clip\.gif: the disk is full\./);
    await expect.element(page.getByText(/^Exporting as/)).not.toBeInTheDocument();
  });

  test('a take whose file has gone cannot be exported', async () => {
    await openedTake(false);
    await expect.element(trigger()).toBeDisabled();
  });
});
