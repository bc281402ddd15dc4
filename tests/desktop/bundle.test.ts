import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { projectRoot } from '../support/cli.ts';

test('the interface stays below 600 kB, compressed', () => {
  const assets = join(projectRoot, 'out/renderer/assets');
  const code = readdirSync(assets).filter((name) => /\.(js|css)$/.test(name));
  expect(code.length).toBeGreaterThan(1);
  const bytes = code.reduce((sum, name) => sum + gzipSync(readFileSync(join(assets, name))).length, 0);
  expect(bytes).toBeLessThan(600_000);
});
