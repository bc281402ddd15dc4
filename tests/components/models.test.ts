import { describe, expect, test } from 'vitest';
import { page, userEvent } from 'vitest/browser';
import { StudioError } from '../../contract/errors.ts';
import type { Download } from '../../contract/models.ts';
import { before, mountApp, openStudio, type Studio } from './support/studio.ts';

async function modelsScreen(): Promise<Studio> {
  const studio = await openStudio();
  await mountApp(studio);
  studio.app.navigation.go('models');
  await expect.element(card('Wan 2.1 T2V 14B')).toBeVisible();
  return studio;
}

const card = (name: string) =>
  page.getByRole('article').filter({ has: page.getByRole('heading', { name, exact: true }) });

describe('a download', () => {
  const offered = card('Wan 2.1 T2V 14B');
  const buttons = () =>
    offered
      .getByRole('button')
      .elements()
      .map(({ textContent }) => textContent?.trim());

  async function begun() {
    const studio = await modelsScreen();
    await offered.getByRole('button', { name: 'Download 40.0 GB' }).click();
    await page.getByRole('alertdialog').getByRole('button', { name: 'Download 40.0 GB' }).click();
    await expect.element(offered).toMatchTextContent(/Downloading · 3.2 GB of 40.0 GB · 42.0 MB\/s · dit.safetensors/);
    const tell = (changes: Partial<Download>) =>
      studio.world.changeDownload(studio.world.downloads[0] as Download, { bytesPerSecond: null, ...changes });
    return { studio, tell };
  }

  test('is asked about first, and can be paused, gone on with and cancelled', async () => {
    const { studio } = await begun();
    expect(buttons()).toEqual(['Pause', 'Cancel']);
    await offered.getByRole('button', { name: 'Pause' }).click();
    await expect.poll(buttons).toEqual(['Resume', 'Cancel']);
    await expect.element(offered).toMatchTextContent(/Paused · 3.2 GB of 40.0 GB/);
    await offered.getByRole('button', { name: 'Resume' }).click();
    await expect.poll(buttons).toEqual(['Pause', 'Cancel']);
    await offered.getByRole('button', { name: 'Cancel' }).click();
    await expect.poll(buttons).toEqual(['Download 40.0 GB']);
    expect(studio.world.downloads).toEqual([]);
  });

  test('that waits for space says how much is missing, and can be tried at once or left to wait no more', async () => {
    const { studio, tell } = await begun();
    tell({ state: 'waiting-for-space', missingBytes: 7.3e9 });
    const missing = offered.getByRole('status');
    await expect
      .element(missing)
      .toHaveTextContent('Free another 7.3 GB on the disk. What has come is kept; it goes on by itself.');
    await expect.element(offered).toMatchTextContent(/Waiting for space · 3.2 GB of 40.0 GB/);
    expect(buttons()).toEqual(['Try now', 'Pause', 'Cancel']);
    tell({ missingBytes: 200e6 });
    await expect.element(missing).toMatchTextContent(/another 200 MB on the disk/);

    await offered.getByRole('button', { name: 'Try now' }).click();
    await expect.element(missing).not.toBeInTheDocument();
    expect(studio.world.downloads).toMatchObject([{ state: 'running' }]);
    tell({ state: 'waiting-for-space', missingBytes: 7.3e9 });
    await offered.getByRole('button', { name: 'Pause' }).click();
    await expect.element(missing).not.toBeInTheDocument();
    expect(studio.world.downloads).toMatchObject([{ state: 'paused' }]);

    tell({ state: 'waiting-for-space', missingBytes: 7.3e9 });
    tell({ state: 'running', missingBytes: null });
    await expect.element(offered).toMatchTextContent(/Downloading/);
    await expect.element(missing).not.toBeInTheDocument();
  });

  test('that failed says why, and can be gone on with', async () => {
    const { tell } = await begun();
    tell({ state: 'failed', error: { code: 'download-failed', message: 'The server answered 404.' } });
    await expect.element(offered.getByText('The server answered 404.')).toBeVisible();
    expect(buttons()).toEqual(['Resume', 'Cancel']);
    await offered.getByRole('button', { name: 'Resume' }).click();
    await expect.element(offered.getByText('The server answered 404.')).not.toBeInTheDocument();
  });
});

describe('a model of one’s own', () => {
  const dialog = page.getByRole('dialog');
  const path = () => dialog.getByRole('textbox', { name: 'Folder on this machine' });
  const importIt = () => dialog.getByRole('button', { name: 'Import' });

  async function importing() {
    const studio = await modelsScreen();
    const asked: unknown[] = [];
    before(studio, 'models.import', (input) => Promise.resolve(void asked.push(input)));
    await page.getByRole('button', { name: 'Import a folder' }).click();
    await expect.element(dialog).toBeVisible();
    return { studio, asked };
  }

  test('is imported in place, listed, and can be used at once', async () => {
    const { studio, asked } = await importing();
    await path().fill('  /data/my model ');
    await importIt().click();
    await expect.element(dialog).not.toBeInTheDocument();
    expect(asked).toEqual([{ path: '/data/my model', how: 'reference' }]);
    await expect.element(card('my model')).toMatchTextContent(/Imported in place/);
    await page.getByRole('region', { name: 'Messages' }).getByRole('button', { name: 'Use in Compose' }).click();
    await expect.poll(() => studio.app.navigation.screen).toBe('compose');
    expect(studio.app.compose.settings.model).toBe('imported-2');
  });

  test('is copied and named where that is wanted, by keyboard alone; the next one begins anew', async () => {
    const { asked } = await importing();
    await path().fill('/data/mine');
    await dialog.getByRole('textbox', { name: /^Name/ }).fill(' Mine ');
    dialog.getByRole('switch', { name: 'Copy the files into the library' }).element().focus();
    await userEvent.keyboard(' ');
    path().element().focus();
    await userEvent.keyboard('{Enter}');
    await expect.element(card('Mine')).toBeVisible();
    expect(asked).toEqual([{ path: '/data/mine', how: 'copy', name: 'Mine' }]);
    await page.getByRole('button', { name: 'Import a folder' }).click();
    await expect.element(path()).toHaveValue('');
    await expect.element(dialog.getByRole('textbox', { name: /^Name/ })).toHaveValue('');
    await expect.element(dialog.getByRole('switch')).not.toBeChecked();
  });

  test('that is none is told at the field, and the next try is a fresh one', async () => {
    const { studio } = await importing();
    let refuse = true;
    before(studio, 'models.import', () =>
      refuse
        ? Promise.reject(new StudioError('bad-model-file', '/data: found no tokeniser.', { field: 'path' }))
        : Promise.resolve(),
    );
    await path().fill('/data');
    await importIt().click();
    await expect.element(dialog.getByRole('alert')).toHaveTextContent('/data: found no tokeniser.');
    await expect.element(path()).toHaveAccessibleDescription('/data: found no tokeniser.');
    await expect.element(path()).toHaveValue('/data');
    await userEvent.keyboard('{Escape}');
    await page.getByRole('button', { name: 'Import a folder' }).click();
    await expect.element(dialog).toBeVisible();
    expect(dialog.getByRole('alert').elements()).toEqual([]);
    refuse = false;
    await importIt().click();
    await expect.element(card('data')).toBeVisible();
  });

  test('without a folder is asked where it is', async () => {
    const { asked } = await importing();
    await path().fill('   ');
    await userEvent.keyboard('{Enter}');
    await expect.element(path()).toHaveAccessibleDescription('Say where it is.');
    expect(asked).toEqual([]);
    await path().fill('/data');
    await importIt().click();
    await expect.element(dialog).not.toBeInTheDocument();
    expect(asked).toHaveLength(1);
  });

  test('can be looked into before: what a file is, or why it is none', async () => {
    await modelsScreen();
    await page.getByRole('button', { name: 'Inspect a file' }).click();
    const file = dialog.getByRole('textbox', { name: 'File or folder on this machine' });
    await dialog.getByRole('button', { name: 'Inspect' }).click();
    await expect.element(file).toHaveAccessibleDescription('Say where it is.');
    await file.fill('dit.safetensors');
    await userEvent.keyboard('{Enter}');
    await expect.element(file).toHaveAccessibleDescription('dit.safetensors: there is no such file.');
    await file.fill('/data/dit.safetensors');
    await userEvent.keyboard('{Enter}');
    await expect.element(dialog).toMatchTextContent(/Transformer \(Wan\) 2\.8 GB.*Tensors 825.*BF16 825.*layers 30/);
    await expect.element(file).not.toHaveAccessibleDescription();
  });

  test('is removed only when that is confirmed', async () => {
    const studio = await modelsScreen();
    const wan = card('Wan 2.1 T2V 1.3B');
    await wan.getByRole('button', { name: 'Remove' }).click();
    const asking = page.getByRole('alertdialog');
    await expect.element(asking).toMatchTextContent(/The studio forgets it; its files stay where they are\./);
    await userEvent.keyboard('{Escape}');
    await expect.element(asking).not.toBeInTheDocument();
    expect(studio.world.models).toHaveLength(2);
    await wan.getByRole('button', { name: 'Remove' }).click();
    await asking.getByRole('button', { name: 'Remove' }).click();
    await expect.element(wan).not.toBeInTheDocument();
    await expect.element(page.getByText('Wan 2.1 T2V 1.3B removed')).toBeVisible();
  });
});
