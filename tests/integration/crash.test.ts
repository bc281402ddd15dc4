/** The short form of the crash test; the long one is `npm run test:crash`. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { Campaign } from '../crash/campaign.ts';
import { stations, visit } from '../crash/failpoints.ts';

const root = mkdtempSync(join(tmpdir(), 'vmoba-crash-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** The moments at which a mistake would cost most. */
const critical = ['file-moved', 'take-committed'];

test('a studio killed at random and at its critical points loses nothing, doubles nothing and leaves nothing over', async () => {
  const killed = new Campaign(join(root, 'killed'), { steps: 3, chance: 5 });
  await visit(
    killed,
    stations
      .filter(({ name, count = 1 }) => critical.includes(name) && (name !== 'file-moved' || count === 1))
      .map((station) => ({ ...station, count: 1 })),
  );
  killed.want(1);
  while (!(await killed.harass(critical.length + 1)));
  const undisturbed = new Campaign(join(root, 'undisturbed'), { steps: 3 });
  undisturbed.want(killed.renders);
  await undisturbed.finish();
  expect(killed.killCount).toBeGreaterThanOrEqual(critical.length);
  expect(killed.examine(undisturbed)).toEqual([]);
}, 900_000);
