import { expect, go, test } from './support/studio.ts';

test('from the first start to two takes compared, and all of it still there after a restart', async ({
  app,
  studio,
  open,
}) => {
  test.setTimeout(300_000);
  const prompt = 'a red ball bounces on a blue floor';

  await test.step('the first start is one prompt away from the first clip', async () => {
    await expect(app.getByRole('heading', { name: 'What Nano can do' })).toBeVisible();
    await app.getByLabel('Prompt', { exact: true }).fill(prompt);
    await app.getByLabel('Size:').click();
    await app.getByRole('option', { name: 'Free size' }).click();
    await app.getByLabel('Width').fill('96');
    await app.getByLabel('Height').fill('90');
    await app.getByLabel('Height').blur();
    await expect(app.getByLabel('Height')).toHaveValue('96');
    await app.getByLabel('Frames', { exact: true }).fill('17');
    await app.getByLabel('Frame rate').fill('16');
    await app.getByLabel('Steps', { exact: true }).fill('6');
    await app.getByText('Partitions, blocks, dense steps').click();
    await app.getByLabel('Start from:').click();
    await app.getByRole('option', { name: 'VMoBA, trained' }).click();
    await app.getByLabel('Dense steps').fill('34');
    await expect(app.getByText('180 tokens')).toBeVisible();
  });

  await test.step('Live shows it as it emerges', async () => {
    await app.getByRole('button', { name: 'Render', exact: true }).click();
    await expect(app).toHaveURL(/#\/live/);
    await expect(app.getByTestId('measured')).toHaveText(/^\d+\.\d\d×$/, { timeout: 60_000 });
    await expect(app.getByLabel(/Preview after step|a red ball/).first()).toBeVisible();
    await expect(app.getByRole('region', { name: 'Why dense' }).getByText('Steps 1–3')).toBeVisible();
    await expect(app.getByRole('button', { name: 'Play the take' })).toBeVisible({ timeout: 60_000 });
    await expect(app.getByTestId('announced')).toHaveText(`${prompt}: Done`);
  });

  await test.step('a word of the prompt shows where the picture uses it', async () => {
    await app.getByRole('button', { name: 'ball', exact: true }).click();
    await expect(app.getByTestId('overlay')).toBeVisible();
  });

  await test.step('a cell of layer × step shows its blocks', async () => {
    const map = app.getByRole('button', { name: /Heat map of density/ });
    await map.focus();
    await app.keyboard.press('ArrowDown');
    await expect(app.getByTestId('cell')).toContainText('Layer 1, step 6');
  });

  await test.step('the take plays', async () => {
    await app.getByRole('button', { name: 'Play the take' }).click();
    const video = app.locator('video');
    await expect(video).toHaveCount(1);
    await expect
      .poll(() => video.evaluate((element) => (element as unknown as { videoWidth: number }).videoWidth))
      .toBe(96);
    const frame = () => app.getByText(/^\d+ \/ 17$/).innerText();
    const before = await frame();
    await expect.poll(frame).not.toBe(before);
  });

  await test.step('its dense reference is one button away', async () => {
    await app.getByRole('button', { name: 'Render again with full attention' }).click();
    await expect(app.getByText('Library 2 takes')).toBeVisible({ timeout: 60_000 });
  });

  await test.step('both are compared under one playhead', async () => {
    await app.getByRole('button', { name: 'Compare' }).click();
    const dialog = app.getByRole('dialog');
    await expect(dialog.locator('video')).toHaveCount(2);
    await expect(dialog.getByText('Dense', { exact: true })).toBeVisible();
    await dialog.getByRole('radio', { name: 'Side by side' }).click();
    await dialog.getByRole('button', { name: 'One frame forward' }).click();
    const times = () =>
      dialog
        .locator('video')
        .evaluateAll((videos) => videos.map((video) => (video as unknown as { currentTime: number }).currentTime));
    await expect.poll(async () => new Set(await times()).size).toBe(1);
    const [before = 0] = await times();
    await app.keyboard.press('ArrowRight');
    await expect.poll(async () => ((await times())[0] ?? 0) - before).toBeCloseTo(1 / 16, 3);
    await app.keyboard.press('Escape');
  });

  await test.step('after closing and opening again everything is there', async () => {
    await app.getByRole('button', { name: 'Favourite' }).click();
    await app.goto('about:blank');
    await studio.stop();
    await studio.start();
    await open(app, 'library');
    await expect(app.getByRole('button', { name: `Open “${prompt}”` })).toHaveCount(2);
    await expect(app.getByRole('button', { name: 'Favourite', pressed: true })).toHaveCount(1);
    await go(app, 'Compose');
    await expect(app.getByLabel('Prompt', { exact: true })).toHaveValue(prompt);
    await expect(app.getByLabel('Steps', { exact: true })).toHaveValue('6');
    await app.getByRole('button', { name: 'Earlier prompts' }).click();
    await expect(app.getByRole('menuitem', { name: prompt })).toBeVisible();
  });
});
