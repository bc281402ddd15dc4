/** What the studio writes with. Failing writes: failedWrites.test.ts. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { makeFolder } from '../../main/studio/files/folders.ts';

const root = mkdtempSync(join(tmpdir(), 'vmoba-files-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe('a folder', () => {
  test('is made with those above it, by several at once, and again', async () => {
    const folder = join(root, 'a', 'b', 'c');
    const ways = [folder, folder, relative(process.cwd(), folder)];
    await Promise.all(ways.map(makeFolder));
    await makeFolder(folder);
    expect(statSync(folder).isDirectory()).toBe(true);
  });

  test('with a file in its place is refused, and so is one below the file', async () => {
    const file = join(root, 'file');
    writeFileSync(file, '');
    await expect(makeFolder(file)).rejects.toMatchObject({
      code: 'io',
      message: expect.stringContaining(`Creating ${file}: EEXIST`) as string,
    });
    await expect(makeFolder(join(file, 'below'))).rejects.toMatchObject({ code: 'io' });
  });

  test.runIf(process.platform === 'linux')('where the system allows none is refused, in the end', async () => {
    await expect(makeFolder('/proc/nowhere/clips')).rejects.toMatchObject({ code: 'io' });
  });
});
