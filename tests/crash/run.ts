/**
 * The long form of the crash test:  npm run test:crash [-- --renders 50 --kills 100 --chance 1]
 * Renders small clips with the real engine while the process tree, main, the engine and the encoder are killed at random
 * moments; then dies once at every failpoint. Ends with 1 and the faults when anything is wrong.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Campaign } from './campaign.ts';
import { stations, visit } from './failpoints.ts';

const { values } = parseArgs({
  options: {
    renders: { type: 'string', default: '50' },
    kills: { type: 'string', default: '100' },
    chance: { type: 'string', default: String(Date.now() % 1e6) },
  },
});
const wanted = { renders: Number(values.renders), kills: Number(values.kills), chance: Number(values.chance) };
const root = mkdtempSync(join(tmpdir(), 'vmoba-crash-'));
const began = performance.now();
const minutes = () => `${((performance.now() - began) / 60_000).toFixed(1)} min`;
console.log(`${wanted.renders} renders, ${wanted.kills} kills, --chance ${wanted.chance}`);

const random = new Campaign(join(root, 'random'), { chance: wanted.chance });
random.want(wanted.renders);
for (;;) {
  const done = await random.harass(wanted.kills);
  console.log(`  start ${random.starts}: ${random.killCount} kills ${JSON.stringify(random.kills)} (${minutes()})`);
  if (!done) continue;
  if (random.killCount >= wanted.kills) break;
  random.want(10); // all done too soon: more to be killed at
}
const undisturbed = new Campaign(join(root, 'undisturbed'));
undisturbed.want(random.renders);
await undisturbed.finish();
const faults = [...random.examine(undisturbed), ...undisturbed.examine()];
report('random kills', random, faults);

const pointwise = new Campaign(join(root, 'failpoints'), { steps: 4 });
await visit(pointwise);
const reference = new Campaign(join(root, 'failpoints-undisturbed'), { steps: 4 });
reference.want(pointwise.renders);
await reference.finish();
const pointFaults = pointwise.examine(reference);
report(`${stations.length} failpoints`, pointwise, pointFaults);

const all = [...faults, ...pointFaults];
if (all.length === 0) rmSync(root, { recursive: true, force: true });
console.log(all.length === 0 ? `Nothing lost, nothing doubled, nothing left over (${minutes()}).` : `See ${root}.`);
process.exitCode = all.length === 0 ? 0 : 1;

function report(what: string, campaign: Campaign, found: string[]): void {
  const { renders, killCount, kills, starts, retries } = campaign;
  console.log(
    `${what}: ${renders} renders, ${killCount} kills ${JSON.stringify(kills)}, ${starts} starts, ${retries.length} renders that failed after three crashes at one step and were tried again, ${found.length} faults (${minutes()})`,
  );
  for (const fault of found) console.log(`  FAULT ${fault}`);
}
