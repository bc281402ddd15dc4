import { describe, test } from 'vitest';
import { expect, openPage, page, userEvent } from './support.ts';

describe('Compose', () => {
  test('snaps a free size to what the model takes, and says at once what it means', async () => {
    await openPage('compose');
    await page.getByLabelText('Size:').click();
    await page.getByRole('option', { name: 'Free size' }).click();
    await page.getByLabelText('Width').fill('121');
    await expect.element(page.getByText('must be a multiple of 16')).toBeVisible();
    await userEvent.tab();
    await expect.element(page.getByLabelText('Width')).toHaveValue(128);
    await expect.element(page.getByText('9 × 12 × 8')).toBeVisible();
    await expect.element(page.getByText('864 tokens')).toBeVisible();
  });

  test('keeps lengths at 4k + 1 frames, whether seconds or frames are given', async () => {
    await openPage('compose');
    await page.getByLabelText('Length').fill('3');
    await expect.element(page.getByLabelText('Frames', { exact: true })).toHaveValue(49);
    await page.getByLabelText('Frames', { exact: true }).fill('30');
    await userEvent.tab();
    await expect.element(page.getByLabelText('Frames', { exact: true })).toHaveValue(29);
  });

  test('asks for a prompt instead of rendering nothing', async () => {
    const { world } = await openPage('compose');
    await page.getByRole('button', { name: 'Render', exact: true }).click();
    await expect.element(page.getByText('Say what the clip shows.')).toBeVisible();
    expect(world.renders).toEqual([]);
  });

  test('turns the dial with the keyboard: less density, more arithmetic speed-up', async () => {
    await openPage('compose');
    const dial = page.getByRole('slider', { name: 'Attention: from reference to fastest' });
    await expect.element(page.getByText('1.59×')).toBeVisible();
    (dial.element() as HTMLElement).focus();
    await userEvent.keyboard('{Home}');
    await expect.element(page.getByText('1.00×')).toBeVisible();
    await expect.element(page.getByText('Dense', { exact: true })).toBeVisible();
  });

  test('a sweep queues one render for each seed', async () => {
    const { world } = await openPage('compose');
    await page.getByLabelText('Prompt', { exact: true }).fill('a red ball');
    await page.getByRole('radio', { name: 'Sweep' }).click();
    await page.getByRole('button', { name: 'Render 4' }).click();
    await expect.poll(() => new Set(world.renders.map(({ settings }) => settings.seed)).size).toBe(4);
  });
});

describe('Live', () => {
  test('keeps what was measured apart from what was computed', async () => {
    const { world } = await openPage('live', { waiting: 1 });
    world.advance();
    for (let step = 0; step < 8; step++) world.advance();
    const [render] = world.renders;
    const { speedup } = world.statistics(render as never);
    expect(speedup.measured).not.toBeNull();
    await expect.element(page.getByTestId('measured')).toHaveTextContent(`${speedup.measured?.toFixed(2)}×`);
    await expect.element(page.getByTestId('arithmetic')).toHaveTextContent(`${speedup.arithmetic?.toFixed(2)}×`);
    await expect.element(page.getByText('against its own 4 dense steps')).toBeVisible();
    await expect.element(page.getByText('the policy keeps the first 4 steps dense').first()).toBeVisible();
  });

  test('says why there is nothing to compare while every step was dense', async () => {
    const { world } = await openPage('live', { waiting: 1 });
    for (let step = 0; step < 3; step++) world.advance();
    await expect.element(page.getByText('A sparse step has still to run.')).toBeVisible();
    await expect.element(page.getByTestId('measured')).toHaveTextContent('–');
  });

  test('goes through layers and steps with the arrow keys', async () => {
    const { world } = await openPage('live', { waiting: 1 });
    for (let step = 0; step < 8; step++) world.advance();
    const map = page.getByRole('button', { name: /Heat map of density, 12 layers by 16 steps/ });
    await expect.element(map).toBeVisible();
    (map.element() as HTMLElement).focus();
    await userEvent.keyboard('{ArrowDown}{ArrowDown}');
    await expect.element(page.getByTestId('cell')).toHaveTextContent(/Layer 2, step 7 · density 0\.\d\d/);
    await userEvent.keyboard('{ArrowLeft}{ArrowLeft}{ArrowLeft}');
    await expect.element(page.getByTestId('cell')).toHaveTextContent(/Layer 2, step 4 · dense: the policy/);
  });
});

describe('Queue', () => {
  test('moves with Alt and the arrow keys, says where to, and keeps the focus', async () => {
    await openPage('queue', { waiting: 3 });
    const rows = page.getByRole('listitem');
    await expect.element(rows.nth(0)).toHaveTextContent('a green square');
    const handle = page.getByRole('button', { name: /^Move “a green square/ });
    (handle.element() as HTMLElement).focus();
    await userEvent.keyboard('{Alt>}{ArrowDown}{/Alt}');
    await expect.element(rows.nth(1)).toHaveTextContent('a green square');
    await expect.element(page.getByText(/place 2 of 3/)).toBeInTheDocument();
    await expect.element(handle).toHaveFocus();
  });

  test('a removal can be undone', async () => {
    const { world } = await openPage('queue', { waiting: 2 });
    await page.getByRole('button', { name: /^Actions for “a green/ }).click();
    await page.getByRole('menuitem', { name: 'Remove' }).click();
    await expect.poll(() => world.renders.length).toBe(1);
    await page.getByRole('button', { name: 'Undo' }).click();
    await expect.poll(() => world.renders.length).toBe(2);
  });

  test('ten thousand waiting renders are only drawn where they can be seen', async () => {
    await openPage('queue', { waiting: 10_000 });
    await expect.element(page.getByText('Waiting · 10,000')).toBeVisible();
    expect(document.querySelectorAll('[role=listitem]').length).toBeLessThan(60);
  });
});

describe('Library', () => {
  test('searches word by word, and says what to do where nothing matches', async () => {
    await openPage('library', { takes: 12 });
    const search = page.getByLabelText('Search prompts and names');
    await search.fill('red floor');
    await expect.poll(() => page.getByRole('button', { name: /^Open/ }).elements().length).toBe(2);
    await search.fill('zebra');
    await expect.element(page.getByText('Nothing matches')).toBeVisible();
    await page.getByRole('button', { name: 'Clear filters' }).click();
    await expect.poll(() => page.getByRole('button', { name: /^Open/ }).elements().length).toBe(12);
  });

  test('takes go to the trash with the keyboard and come back', async () => {
    const { world } = await openPage('library', { takes: 2 });
    const first = page.getByRole('button', { name: /^Open/ }).first();
    await expect.element(first).toBeVisible();
    (first.element() as HTMLElement).focus();
    await userEvent.keyboard('{Delete}');
    await expect.element(page.getByText('1 take moved to the trash')).toBeVisible();
    await page.getByRole('button', { name: 'Undo' }).click();
    await expect.poll(() => world.takes.filter(({ trashedAt }) => trashedAt !== null).length).toBe(0);
  });

  test('a teaching word where nothing is yet', async () => {
    await openPage('library');
    await page.getByRole('button', { name: 'Make the first clip' }).click();
    await expect.element(page.getByLabelText('Prompt', { exact: true })).toHaveFocus();
  });
});

describe('Keys', () => {
  test('the palette finds a command and runs it', async () => {
    await openPage('compose');
    await userEvent.keyboard('{Control>}k{/Control}');
    await page.getByPlaceholder(/Type a command/).fill('queue');
    await userEvent.keyboard('{Enter}');
    await expect.element(page.getByText('The queue is empty')).toBeVisible();
  });

  test('shortcuts can be bound anew, but not to keys that are taken', async () => {
    await openPage('settings');
    await page.getByRole('button', { name: /^Go to Queue: / }).click();
    await userEvent.keyboard('{Control>}4{/Control}');
    await expect.element(page.getByText('Those keys belong to “Go to Library”.')).toBeVisible();
    await userEvent.keyboard('{Alt>}q{/Alt}');
    await expect.element(page.getByRole('button', { name: 'Go to Queue: Alt+Q. Change' })).toBeVisible();
    await userEvent.keyboard('{Alt>}q{/Alt}');
    await expect.element(page.getByText('The queue is empty')).toBeVisible();
  });
});

test('a lost connection is said, and taken up again by itself', async () => {
  const transport = await openPage('compose');
  transport.drop();
  await expect.element(page.getByText('The studio does not answer.', { exact: false })).toBeVisible();
  await expect.element(page.getByText('The studio does not answer.', { exact: false })).not.toBeInTheDocument();
});
