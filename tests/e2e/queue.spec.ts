import { expect, go, test } from './support/studio.ts';

test('five renders are reordered and paused; the engine is killed under one, and all end well', async ({
  app,
  studio,
}) => {
  const prompts = ['one red ball', 'two red balls', 'three red balls', 'four red balls', 'five red balls'];
  const settings = await studio.settings({ steps: 100 });
  await studio.with(async (client) => {
    await client.call('queue.pause');
    for (const prompt of prompts) await client.call('renders.create', { settings: { ...settings, prompt } });
  });
  await go(app, 'Queue');
  const rows = app.getByRole('list', { name: 'Waiting renders, first to last' }).getByRole('listitem');
  await expect(rows).toHaveCount(5);

  await test.step('by keyboard', async () => {
    const handle = app.getByRole('button', { name: /^Move “five red balls”/ });
    await handle.focus();
    await app.keyboard.press('Alt+ArrowUp');
    await expect(rows.nth(3)).toContainText('five red balls');
    await expect(handle).toBeFocused();
    await app.keyboard.press('Alt+Home');
    await expect(rows.nth(0)).toContainText('five red balls');
  });

  await test.step('by dragging', async () => {
    const handle = app.getByRole('button', { name: /^Move “one red ball”/ });
    await handle.dragTo(rows.nth(4), { targetPosition: { x: 200, y: 40 } });
    await expect(rows.nth(4)).toContainText('one red ball');
  });

  await test.step('edit, and undo a removal', async () => {
    await app.getByRole('button', { name: 'Actions for “two red balls”' }).click();
    await app.getByRole('menuitem', { name: 'Edit' }).click();
    await app.getByRole('dialog').getByLabel('Seed').fill('99');
    await app.getByRole('button', { name: 'Save' }).click();
    await expect(app.getByRole('dialog')).toBeHidden();
    await app.getByRole('button', { name: 'Actions for “three red balls”' }).click();
    await app.getByRole('menuitem', { name: 'Remove' }).click();
    await expect(rows).toHaveCount(4);
    await app.getByRole('button', { name: 'Undo' }).click();
    await expect(rows).toHaveCount(5);
    await rows.filter({ hasText: 'three red balls' }).getByRole('button', { name: 'Resume' }).click();
  });

  await test.step('pause one while the rest runs', async () => {
    await rows.filter({ hasText: 'four red balls' }).getByRole('button', { name: 'Pause' }).click();
    await app.getByRole('button', { name: 'Resume', exact: true }).first().click();
    await expect(app.getByRole('progressbar')).toBeVisible();
    await expect(app.getByTestId('announced')).toHaveText(/^Rendering .+: \d0 %$/);
  });

  await test.step('kill the engine in the middle of a render', async () => {
    await expect(app.getByText(/Step \d\d of 100/)).toBeVisible();
    // One process renders, another may answer questions about plans: both go.
    const pids = studio.enginePids();
    expect(pids).not.toEqual([]);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
    await expect(app.getByText(/engine restart/).first()).toBeVisible();
  });

  await test.step('it goes on by itself; the paused one goes on when asked', async () => {
    await expect(app.getByText('Library 4 takes')).toBeVisible({ timeout: 90_000 });
    await rows.filter({ hasText: 'four red balls' }).getByRole('button', { name: 'Resume' }).click();
    await expect(app.getByText('Library 5 takes')).toBeVisible({ timeout: 60_000 });
    await expect(app.getByRole('heading', { name: 'The queue is empty' })).toBeVisible();
  });

  const crashes = await studio.with(async (client) => {
    const { items } = await client.call('renders.list', { states: ['done'] });
    return items.map(({ settings: { prompt, seed }, engineCrashes }) => ({ prompt, seed, engineCrashes }));
  });
  expect(crashes.reduce((sum, { engineCrashes }) => sum + engineCrashes, 0)).toBe(1);
  expect(crashes.find(({ prompt }) => prompt === 'two red balls')?.seed).toBe('99');
});
