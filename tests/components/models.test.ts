import { describe, expect, test } from 'vitest';
import { page } from 'vitest/browser';
import type { Download } from '../../contract/models.ts';
import { mountApp, openStudio, type Studio } from './support/studio.ts';

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
