/**
 * The short form of the crash test: dies once at every failpoint, and once at random. The long one, with other steps and many
 * random kills, is `npm run test:crash`.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { failpoints } from '../../main/studio/failpoints.ts';
import { Campaign } from '../crash/campaign.ts';
import { stations, visit } from '../crash/failpoints.ts';

const root = mkdtempSync(join(tmpdir(), 'vmoba-crash-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

test('every failpoint is visited', () => {
  expect([...new Set(stations.map(({ name }) => name))].sort()).toEqual([...failpoints].sort());
});

test('a studio killed at random and between any two durable steps loses nothing, doubles nothing and leaves nothing over', async () => {
  const killed = new Campaign(join(root, 'killed'), { steps: 3, chance: 5 });
  await visit(killed);
  killed.want(1);
  while (!(await killed.harass(stations.length + 1)));
  const undisturbed = new Campaign(join(root, 'undisturbed'), { steps: 3 });
  undisturbed.want(killed.renders);
  await undisturbed.finish();
  expect(killed.killCount).toBeGreaterThanOrEqual(stations.length);
  expect(killed.examine(undisturbed)).toEqual([]);
}, 900_000);
