/** The app in Electron itself, where its binary is present. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { _electron, expect, test } from '@playwright/test';
import { electronBinary } from '../../scripts/lib/electron-binary.mjs';
import { projectRoot } from '../support/cli.ts';

const binary = electronBinary();

test('the window opens, shut in, and the studio answers it', async () => {
  test.skip(binary === null, "Electron's binary is not on this machine");
  const folder = mkdtempSync(join(tmpdir(), 'vmoba-electron-'));
  const app = await _electron.launch({
    executablePath: binary ?? '',
    args: ['--no-sandbox', `--user-data-dir=${folder}`, projectRoot],
    env: { ...(process.env as Record<string, string>), VMOBA_LIBRARY: join(folder, 'library') },
  });
  try {
    const page = await app.firstWindow();
    await expect(page.getByRole('navigation', { name: 'Screens' })).toBeVisible();
    await expect(page.getByText('Library 0 takes')).toBeVisible();
    expect(page.url()).toMatch(/^app:\/\/studio\//);
    expect(await page.evaluate('[typeof require, typeof process]')).toEqual(['undefined', 'undefined']);
    await page.evaluate("location.href = 'https://example.org/'").catch(() => {}); // a denied navigation rejects
    expect(page.url()).toMatch(/^app:\/\/studio\//);
  } finally {
    await app.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
