import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { QueueRunner, type QueueRunnerOptions } from '../../main/studio/queue/queueRunner.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-queue-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const render = { id: 'rnd_1', stepsDone: 0, settings: { steps: 1 } };

/** A library of one waiting render, whose answers wait for `answers[method]`. */
function runnerOver(answers: { peekNext?: Promise<void>; takeNext?: Promise<void> }, minimumFreeBytes = 0) {
  const renders = {
    requeueInterrupted: async () => [],
    peekNext: vi.fn(async () => (await answers.peekNext, render)),
    takeNext: vi.fn(async () => (await answers.takeNext, render)),
    putBackFirst: vi.fn(async () => render),
    counts: async () => ({ running: 0, queued: 1, paused: 0 }),
    get: async () => render,
    firstQueued: async () => [],
  };
  const options = {
    library: {
      paths: { folder },
      renders,
      settings: {
        queueIntent: async () => 'running',
        setQueueIntent: async () => {},
        get: async () => ({ minimumFreeBytes }),
      },
    },
    requests: { resolve: () => Promise.reject(new Error('not asked for')) },
    engines: { setRendering: vi.fn() },
    publish: vi.fn(),
    onCorrupt: vi.fn(),
  };
  return { runner: new QueueRunner(options as unknown as QueueRunnerOptions), renders, engines: options.engines };
}

test('what is just being taken when somebody pauses the queue is put back and does not run', async () => {
  let answer = () => {};
  const { runner, renders, engines } = runnerOver({ takeNext: new Promise<void>((resolve) => (answer = resolve)) });
  await runner.start();
  await vi.waitFor(() => expect(renders.takeNext).toHaveBeenCalled());
  await runner.pauseAll();
  answer();
  await vi.waitFor(() => expect(renders.putBackFirst).toHaveBeenCalledWith(render.id));
  expect(runner.runningId).toBeNull();
  expect(engines.setRendering).not.toHaveBeenCalled();
  await runner.close();
});

test('a queue paused while space was looked for stays paused', async () => {
  let answer = () => {};
  const { runner, renders } = runnerOver(
    { peekNext: new Promise<void>((resolve) => (answer = resolve)) },
    Number.MAX_SAFE_INTEGER,
  );
  await runner.start();
  await vi.waitFor(() => expect(renders.peekNext).toHaveBeenCalled());
  await runner.pauseAll();
  answer();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(await runner.status().then(({ mode }) => mode)).toBe('paused');
  await runner.close();
});
