/**
 * How the studio holds up with a large library:  npm run bench:studio [-- --renders 10000]
 * Every second render has a take. Calls go through the codec, the handlers and the library's thread, as from any client; each is
 * made 40 times and its median printed. Then one real render, for what its events cost. Nothing here fails: it measures.
 */
import { cpSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { encodeMessage } from '../../contract/codec.ts';
import { libraryPaths } from '../../main/studio/library/folder.ts';
import { fillLibrary } from '../support/library.ts';
import { makeRandomModel } from '../support/models.ts';
import { settings, StudioTests } from '../support/studio.ts';

const { values } = parseArgs({ options: { renders: { type: 'string', default: '10000' } } });
const renders = Number(values.renders);
console.log(`${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores, Node ${process.version}`);

const median = (numbers: number[]) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1] ?? 0;
const row = (name: string, value: string, limit: string) =>
  console.log(`  ${name.padEnd(52)} ${value.padStart(12)}   ${limit}`);
const tests = new StudioTests();
const root = mkdtempSync(join(tmpdir(), 'vmoba-bench-'));

// Filled in memory, measured on the disk.
const memory = mkdtempSync('/dev/shm/vmoba-bench-');
const realistic = { steps: 50, layers: 30, heads: 12 };
fillLibrary(libraryPaths(join(memory, 'small')), 100, realistic);
fillLibrary(libraryPaths(join(memory, 'large')), 500, realistic);
const sizeOf = (name: string) => statSync(join(memory, name, 'library.db')).size;
const perTake = (sizeOf('large') - sizeOf('small')) / 200;
fillLibrary(libraryPaths(join(memory, 'library')), renders);
const folder = join(root, 'library');
cpSync(join(memory, 'library'), folder, { recursive: true });
rmSync(memory, { recursive: true, force: true });

const model = makeRandomModel(join(root, 'nano'), 'nano');
const opened = await tests.open(folder, { addon: undefined, embeddedModel: model });
const { client, studio } = opened;
await client.call('queue.pause');

async function time(name: string, limitMs: number, call: (round: number) => Promise<unknown>): Promise<void> {
  const milliseconds: number[] = [];
  for (let round = 0; round < 40; round++) {
    const began = performance.now();
    await call(round);
    milliseconds.push(performance.now() - began);
  }
  row(
    name,
    `${median(milliseconds).toFixed(2)} ms`,
    `wanted ≤ ${limitMs} ms (slowest ${Math.max(...milliseconds).toFixed(1)} ms)`,
  );
}

console.log(`\n${renders} renders, ${renders / 2} takes: median of 40 calls`);
let cursor: string | null = null;
for (let page = 0; page < 50; page++) cursor = (await client.call('takes.list', { cursor, limit: 50 })).nextCursor;
let renderCursor: string | null = null;
for (let page = 0; page < 50; page++)
  renderCursor = (await client.call('renders.list', { cursor: renderCursor })).nextCursor;
const { items: projects } = await client.call('projects.list');
await time('takes.list, first page', 10, () => client.call('takes.list'));
await time('takes.list, page 50', 10, () => client.call('takes.list', { cursor }));
await time('takes.list by name', 10, () => client.call('takes.list', { order: 'name' }));
await time('takes.list of a project', 10, () => client.call('takes.list', { projectId: projects[0]?.id }));
await time('takes.list, search: one word in half of them', 10, () => client.call('takes.list', { query: 'fox' }));
await time('takes.list, search: two words and a beginning', 10, () =>
  client.call('takes.list', { query: 'quick caut 4' }),
);
await time('renders.list, first page', 10, () => client.call('renders.list'));
await time('renders.list, page 50', 10, () => client.call('renders.list', { cursor: renderCursor }));
await time('renders.list, waiting ones', 10, () => client.call('renders.list', { states: ['queued', 'paused'] }));
await time('renders.list, done ones, newest first', 10, () =>
  client.call('renders.list', { states: ['done'], order: 'newest' }),
);
await time('prompts.history, search', 10, () => client.call('prompts.history', { query: 'dog' }));
await time('projects.list', 10, () => client.call('projects.list'));

const wanted = settings({ model: 'nano-random', width: 128, height: 128, frames: 17, steps: 8 });
const installed = (await client.call('models.list')).items[0]?.id ?? '';
const ids: string[] = [];
const create = async () =>
  ids.push((await client.call('renders.create', { settings: { ...wanted, model: installed } })).id);
await create(); // asks the engine once
await time('renders.create', 5, create);
const id = (round: number) => ids[round % ids.length] ?? '';
await time('renders.move to the front', 5, (round) => client.call('renders.move', { ids: [id(round)], to: 'first' }));
await time('renders.move before another', 5, (round) =>
  client.call('renders.move', { ids: [id(round)], to: { before: id(round + 1) } }),
);
await time('renders.edit', 5, (round) =>
  client.call('renders.edit', { id: id(round), changes: { fps: 8 + (round % 9) } }),
);
await time('renders.pause', 5, (round) => client.call('renders.pause', { id: id(round) }));
await time('renders.resume', 5, (round) => client.call('renders.resume', { id: id(round) }));
await time('renders.remove', 5, (round) => client.call('renders.remove', { ids: [id(round)] }));
await time('renders.restore', 5, (round) => client.call('renders.restore', { ids: [id(round)] }));
await time('queue.status', 5, () => client.call('queue.status'));

const all = await client.call('renders.list', { states: ['queued', 'paused'], limit: 500 });
for (let at = 0; at < all.total; at += 500) {
  const { items } = await client.call('renders.list', { states: ['queued', 'paused'], limit: 500 });
  await client.call('renders.remove', { ids: items.map((render) => render.id) });
}
// Everything that is told, encoded for one client that watches previews and maps.
let spent = 0;
let messages = 0;
studio.events.listen((name, payload) => {
  const began = performance.now();
  encodeMessage({ kind: 'event', name, payload });
  spent += performance.now() - began;
  messages++;
});
const { id: watched } = await client.call('renders.create', { settings: { ...wanted, model: installed } });
await client.call('renders.watch', { id: watched, maps: { layer: 0, words: true } });
spent = 0;
messages = 0;
await client.call('queue.resume');
for (;;) {
  const { state, error } = await client.call('renders.get', { id: watched });
  if (state === 'failed') throw new Error(error?.message);
  if (state === 'done') break;
  await new Promise((resolve) => setTimeout(resolve, 100));
}
const { steps } = await client.call('renders.statistics', { id: watched });
const stepSeconds = steps.reduce((sum, step) => sum + step.seconds.total, 0);
console.log(
  `\nA render of ${wanted.frames} frames ${wanted.width}×${wanted.height}, ${steps.length} steps of ${((1000 * stepSeconds) / steps.length).toFixed(0)} ms`,
);
row(
  'event traffic, of its step time',
  `${((spent / 1000 / stepSeconds) * 100).toFixed(2)} %`,
  `wanted ≤ 1 % (${messages} events)`,
);
row(
  'database growth for a render of 50 steps, 30 layers',
  `${(perTake / 1000).toFixed(1)} KB`,
  'wanted ≤ 100 KB (its take and statistics)',
);
await tests.end();
rmSync(root, { recursive: true, force: true });
