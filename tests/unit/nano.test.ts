/** The embedded model's files are the ones its model.json describes, and small enough to travel inside the application. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { embeddedModel } from '../../main/host/resources.ts';
import { readModelCard } from '../../main/studio/render/modelCard.ts';

const folder = embeddedModel();
const description = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8')) as {
  content: Record<string, { bytes: number; sha256: string }>;
};

test("the embedded model's files have the sizes and hashes of its model.json", async () => {
  const card = await readModelCard(folder);
  const found = Object.fromEntries(
    Object.values(card.files).map((name) => {
      const data = readFileSync(join(folder, name));
      return [name, { bytes: data.length, sha256: createHash('sha256').update(data).digest('hex') }];
    }),
  );
  expect(found).toEqual(description.content);
});

test('every file of the embedded model is below 15 MB, and all together below 20 MB', () => {
  const sizes = Object.values(description.content).map(({ bytes }) => bytes);
  expect(Math.max(...sizes)).toBeLessThan(15e6);
  expect(sizes.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(20e6);
});
