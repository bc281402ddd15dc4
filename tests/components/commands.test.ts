import { describe, expect, test } from 'vitest';
import { page, userEvent } from 'vitest/browser';
import { StudioError, type StudioErrorCode, studioErrorCodes } from '../../contract/errors.ts';
import type { Render } from '../../contract/renders.ts';
import QueueRow from '../../renderer/components/queue/QueueRow.svelte';
import Shortcuts from '../../renderer/components/settings/Shortcuts.svelte';
import { text } from '../../renderer/i18n/index.ts';
import { globalActions } from '../../renderer/state/globalActions.ts';
import { mountApp, mountPart, openStudio } from './support/studio.ts';

describe('the command palette', () => {
  const input = () => page.getByPlaceholder('Type a command, a prompt of an earlier render, or a take');
  const options = () =>
    page
      .getByRole('option')
      .elements()
      .map((option) => option.querySelector('span')?.textContent);

  async function opened(takes = 0) {
    const studio = await openStudio({ takes });
    await mountApp(studio);
    await userEvent.keyboard('{Control>}k{/Control}');
    await expect.element(input()).toHaveFocus();
    return studio;
  }

  test('finds commands by any of their words and runs the chosen one', async () => {
    const studio = await opened();
    await input().fill('queue go');
    await expect.poll(options).toEqual(['Go to Queue']);
    await userEvent.keyboard('{Enter}');
    await expect.poll(() => studio.app.navigation.screen).toBe('queue');
    await expect.element(input()).not.toBeInTheDocument();
  });

  test('the arrow keys choose, and go round', async () => {
    const studio = await opened();
    await input().fill('go to');
    await expect.poll(() => options().length).toBe(6);
    await userEvent.keyboard('{ArrowUp}{Enter}');
    await expect.poll(() => studio.app.navigation.screen).toBe('settings');
  });

  test('finds earlier prompts and takes', async () => {
    const studio = await opened(3);
    await input().fill('triangle');
    await expect.poll(options).toEqual(Array(2).fill('a yellow triangle spins on a black background'));
    await userEvent.keyboard('{ArrowDown}{Enter}');
    await expect.poll(() => studio.app.opened?.name).toBe('a yellow triangle spins on a black background');
    expect(studio.app.navigation.screen).toBe('library');
  });

  test('an earlier prompt goes into the prompt field', async () => {
    const studio = await opened(3);
    await input().fill('green square');
    await expect.poll(() => options().length).toBe(2);
    await userEvent.keyboard('{Enter}');
    await expect.poll(() => studio.app.compose.settings.prompt).toBe('a green square moves to the right');
  });

  test('says when nothing matches, and begins anew next time', async () => {
    await opened(1);
    await input().fill('zebra');
    await expect.element(page.getByText('Nothing matches.')).toBeVisible();
    await userEvent.keyboard('{Escape}');
    await expect.element(input()).not.toBeInTheDocument();
    await userEvent.keyboard('{Control>}k{/Control}');
    await expect.element(input()).toHaveValue('');
    expect(options().length).toBeGreaterThan(10);
  });

  test('offers only what can be done now', async () => {
    const studio = await openStudio({ waiting: 1 });
    await mountApp(studio);
    studio.app.paletteOpen = true;
    await input().fill('cancel the');
    await expect.element(page.getByText('Nothing matches.')).toBeVisible();
    studio.world.advance();
    await expect.poll(options).toEqual(['Cancel the running render']);
  });
});

describe('shortcuts', () => {
  const keys = (title: string) => page.getByRole('button', { name: new RegExp(`^${title}: .*\\. Change$`) });

  const refusal = () => page.getByRole('alert');
  const taken = (keys: string, action: string) =>
    `${keys} belongs to “${action}”. Choose others, or change that one first.`;

  async function recorder() {
    const studio = await openStudio();
    studio.app.actions.register(globalActions(studio.app));
    await mountPart(studio, Shortcuts);
    return studio;
  }

  test('recorded keys do the action from now on, and the old ones nothing', async () => {
    const studio = await recorder();
    await keys('Go to Queue').click();
    await expect.element(keys('Go to Queue')).toMatchTextContent('Press keys…');
    await userEvent.keyboard('{Control>}{Shift>}j{/Shift}{/Control}');
    await expect.element(keys('Go to Queue')).toMatchTextContent('Ctrl+Shift+J');
    expect(studio.world.settings.shortcuts).toEqual({ 'go-queue': 'Mod+Shift+J' });
    await userEvent.keyboard('{Control>}3{/Control}');
    expect(studio.app.navigation.screen).toBe('compose');
    await userEvent.keyboard('{Control>}{Shift>}j{/Shift}{/Control}');
    expect(studio.app.navigation.screen).toBe('queue');
  });

  test('keys of another action are refused, and its name told', async () => {
    const studio = await recorder();
    await keys('Go to Queue').click();
    await userEvent.keyboard('{Control>}k{/Control}');
    await expect.element(refusal()).toHaveTextContent(taken('Ctrl+K', 'Show all commands'));
    await expect.element(keys('Go to Queue')).toMatchTextContent('Press keys…');
    expect(studio.app.paletteOpen).toBe(false);
    await userEvent.keyboard('{Escape}');
    await expect.element(keys('Go to Queue')).toMatchTextContent('Ctrl+3');
    await expect.element(refusal()).not.toBeInTheDocument();
    expect(studio.world.settings.shortcuts).toEqual({});
  });

  test('keys that only another screen uses are refused as well, and those that are nobody’s to give', async () => {
    const studio = await recorder();
    await keys('Go to Queue').click();
    await userEvent.keyboard('f');
    await expect.element(refusal()).toHaveTextContent(taken('F', 'Mark or unmark as favourite'));
    await userEvent.keyboard('{Control>}c{/Control}');
    await expect.element(refusal()).toHaveTextContent('Ctrl+C always means “Copy”. Choose others.');
    expect(studio.world.settings.shortcuts).toEqual({});
    await userEvent.keyboard('j');
    await expect.element(keys('Go to Queue')).toMatchTextContent(/^\s*J\s*$/);
    await expect.element(refusal()).not.toBeInTheDocument();
  });

  test('an action of another screen takes other keys, and its old ones are free', async () => {
    const studio = await openStudio({ takes: 1 });
    await mountApp(studio);
    studio.app.navigation.go('settings');
    await keys('Mark or unmark as favourite').click();
    await userEvent.keyboard('g');
    await keys('Go to Queue').click();
    await userEvent.keyboard('f');
    await expect.element(keys('Go to Queue')).toMatchTextContent(/^\s*F\s*$/);
    studio.app.navigation.go('library');
    const card = page.getByRole('button', { name: /^Open “/ });
    await expect.element(card).toBeVisible();
    card.element().focus();
    await userEvent.keyboard('g');
    await expect.poll(() => studio.world.takes[0]?.favourite).toBe(true);
    await userEvent.keyboard('f');
    await expect.poll(() => studio.app.navigation.screen).toBe('queue');
    expect(studio.world.takes[0]?.favourite).toBe(true);
  });

  test('Delete takes the keys away, and the original ones can be had back', async () => {
    const studio = await recorder();
    await keys('Go to Queue').click();
    await userEvent.keyboard('{Delete}');
    await expect.element(keys('Go to Queue')).toMatchTextContent('none');
    await userEvent.keyboard('{Control>}3{/Control}');
    expect(studio.app.navigation.screen).toBe('compose');
    await page.getByRole('button', { name: 'Original keys for “Go to Queue”' }).click();
    await expect.element(keys('Go to Queue')).toMatchTextContent('Ctrl+3');
  });

  test('original keys that another action has taken meanwhile are not given twice', async () => {
    const studio = await recorder();
    await keys('Go to Queue').click();
    await userEvent.keyboard('{Control>}j{/Control}');
    await keys('Go to Live').click();
    await userEvent.keyboard('{Control>}3{/Control}');
    await expect.element(keys('Go to Live')).toMatchTextContent('Ctrl+3');
    await page.getByRole('button', { name: 'Original keys for “Go to Queue”' }).click();
    await expect.element(refusal()).toHaveTextContent(taken('Ctrl+3', 'Go to Live'));
    expect(studio.world.settings.shortcuts).toEqual({ 'go-queue': 'Mod+J', 'go-live': 'Mod+3' });
  });

  test('one key without Control stays out of the way of typing', async () => {
    const studio = await openStudio({ settings: { shortcuts: { 'go-queue': 'Q' } } });
    await mountApp(studio);
    await page.getByRole('textbox', { name: 'Prompt' }).click();
    await userEvent.keyboard('q');
    expect(studio.app.navigation.screen).toBe('compose');
    expect(studio.app.compose.settings.prompt).toBe('q');
    (document.activeElement as HTMLElement).blur();
    await userEvent.keyboard('q');
    expect(studio.app.navigation.screen).toBe('queue');
  });
});

describe('errors', () => {
  /** Where the studio's own sentence always holds what to do: no general advice can be given. */
  const ownAdvice: StudioErrorCode[] = ['bad-request', 'bad-clip-file', 'unsupported', 'conflict', 'too-large'];

  const alert = () => page.getByRole('region', { name: 'Messages' }).getByRole('alert');

  test.each(studioErrorCodes)('%s is told with what it means and what to do', async (code) => {
    const studio = await openStudio({ waiting: 1 });
    const [waiting] = studio.world.renders;
    if (!waiting) throw new Error('Nothing waits.');
    const { title, advice } = text.errors[code];
    const sentence = 'The studio says what happened.';
    const error = { code, message: sentence };
    const failed: Render = { ...waiting, state: 'failed', error };
    await mountPart(studio, QueueRow, { render: failed, onedit: () => {} });
    studio.app.toasts.error(new StudioError(code, sentence));
    expect(title.length).toBeGreaterThan(5);
    expect(advice === '').toBe(ownAdvice.includes(code));
    const told = advice === '' ? sentence : `${sentence} ${advice}`;
    await expect.element(page.getByRole('article')).toMatchTextContent(`${title}: ${told}`);
    await expect.element(alert()).toMatchTextContent(title);
    await expect.element(alert()).toMatchTextContent(told);
  });

  test('advice that the studio gave itself is not said twice', async () => {
    const studio = await openStudio();
    await mountPart(studio, Shortcuts);
    const { advice } = text.errors['disk-full'];
    studio.app.toasts.error(new StudioError('disk-full', `Nothing fits any more. ${advice}`));
    await expect.element(alert()).toMatchTextContent(new RegExp(`^\\S.*any more\\. ${advice}\\s*$`));
  });

  test('what is no StudioError is a fault of the studio, with its message', async () => {
    const studio = await openStudio();
    await mountPart(studio, Shortcuts);
    studio.app.toasts.error(new TypeError('x is undefined'));
    await expect.element(alert()).toMatchTextContent(/Something went wrong in the studio x is undefined/);
  });
});
