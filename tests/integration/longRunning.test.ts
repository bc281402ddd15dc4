/** An engine that lives long: many renders in one process, and calls that queue behind each other. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EngineClient } from '../../main/engine/engineClient.ts';
import { sessionRequest } from '../support/engine.ts';
import { makeRandomModel } from '../support/models.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-long-'));
let engine: EngineClient;
let model: string;

beforeAll(() => {
  model = makeRandomModel(join(folder, 'tiny'), 'tiny');
  engine = EngineClient.start();
});
afterAll(async () => {
  await engine.stop();
  rmSync(folder, { recursive: true, force: true });
});

const request = (seed: number) =>
  sessionRequest({
    model,
    width: 64,
    height: 48,
    frames: 9,
    steps: 2,
    seed: String(seed),
    prompt: `a ball, take ${seed}`,
  });

async function render(seed: number): Promise<string> {
  const session = await engine.openSession(request(seed), () => {});
  await session.encodeText();
  for (let step = 0; step < 2; step++) await session.step({ preview: true, maps: { layer: 0, words: true } });
  const hash = await session.latentHash();
  while (await session.decodeFrames());
  await session.close();
  return hash;
}

const residentBytes = () =>
  1024 * Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${engine.pid}/status`, 'utf8'))?.[1]);

test('memory does not grow over twenty renders in one process', async () => {
  // The first renders fill caches and the allocator's arenas, whose size goes on wandering (25 MB after a thousand renders, and
  // no further).
  for (let seed = 0; seed < 10; seed++) await render(seed);
  const before = residentBytes();
  for (let seed = 10; seed < 30; seed++) await render(seed);
  expect(residentBytes() - before).toBeLessThan(16e6);
});

test('two sessions of one engine take turns and do not mix', async () => {
  const alone = await render(1);
  const both = await Promise.all([render(1), render(2)]);
  expect(both[0]).toBe(alone);
  expect(both[1]).not.toBe(alone);
});

test('a preview has the shape of a picture, and maps name their data', async () => {
  const session = await engine.openSession(request(1), () => {});
  const { preview, maps, report } = await session.step({ preview: true, maps: { layer: 0, words: true } });
  expect(preview?.rgb.length).toBe((preview?.width ?? 0) * (preview?.height ?? 0) * (preview?.count ?? 0) * 3);
  expect(preview?.count).toBeGreaterThan(0);
  expect(maps?.data.length).toBeGreaterThan(0);
  expect(report.layers).toHaveLength(3);
  await session.close();
});

test('a closed session refuses further calls', async () => {
  const session = await engine.openSession(request(1), () => {});
  await session.close();
  await expect(session.step()).rejects.toThrow(/not open/);
});

test('an engine told to yield runs every thread at the lower priority', async () => {
  const polite = EngineClient.start({ nice: 15 });
  try {
    await polite.plan(request(1));
    const threads = readdirSync(`/proc/${polite.pid}/task`);
    const nice = (thread: string) => {
      const stat = readFileSync(`/proc/${polite.pid}/task/${thread}/stat`, 'utf8');
      return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[16];
    };
    // Only libuv's own threads may have started before the first line of the entry ran; they are told as well.
    expect(new Set(threads.map(nice))).toEqual(new Set(['15']));
  } finally {
    await polite.stop();
  }
});
