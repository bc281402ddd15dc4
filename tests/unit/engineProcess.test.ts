import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';
import type { EngineClient, EngineClientOptions } from '../../main/engine/engineClient.ts';
import type { EngineProgress } from '../../main/engine/protocol.ts';
import { sessionRequest, startFaultyEngine } from '../support/engine.ts';
import { exists, until } from '../support/processes.ts';

const started: EngineClient[] = [];
const start = (options?: EngineClientOptions) => {
  const client = startFaultyEngine(options);
  started.push(client);
  return client;
};
const open = (client: EngineClient, prompt: string, onProgress: (progress: EngineProgress) => void = () => {}) =>
  client.openSession(sessionRequest({ prompt }), onProgress);

afterEach(async () => {
  await Promise.all(started.splice(0).map((client) => client.stop()));
});

describe('the engine process', () => {
  test('answers with values and reports progress while a step runs', async () => {
    const seen: EngineProgress[] = [];
    const session = await open(start(), 'a red ball', (progress) => seen.push(progress));
    const { report } = await session.step();
    expect(report.step).toBe(0);
    expect(seen.map((progress) => progress.phase)).toEqual(['sampling', 'sampling']);
  });

  test('passes frames as bytes', async () => {
    const session = await open(start(), 'a red ball');
    const frames = await session.decodeFrames();
    expect(frames?.rgb).toBeInstanceOf(Uint8Array);
    expect(frames?.rgb.length).toBe(4 * 32 * 16 * 3);
  });

  test('hands on native errors with code and field', async () => {
    await expect(start().inspect('/broken.safetensors')).rejects.toMatchObject({
      name: 'StudioError',
      code: 'bad-model-file',
      field: 'model',
      message: '/broken.safetensors: header: longer than the file',
    });
  });

  test('cancels a running step within a second and stays usable', async () => {
    const session = await open(start(), 'slow');
    const step = session.step();
    const rejected = expect(step).rejects.toMatchObject({ code: 'cancelled' });
    const asked = performance.now();
    session.cancel();
    await rejected;
    expect(performance.now() - asked).toBeLessThan(1000);
    await expect(session.latentHash()).resolves.toMatch(/^[0-9a-f]{16}$/);
  });

  test('a crash rejects the running call with the signal and the last words', async () => {
    const client = start();
    const session = await open(client, 'crash at 0');
    await expect(session.step()).rejects.toMatchObject({
      code: 'engine-crashed',
      message: expect.stringMatching(/SIGSEGV.*planted fault/),
    });
    await expect(client.exited).resolves.toMatchObject({ signal: 'SIGSEGV', expected: false });
    await expect(client.describe()).rejects.toMatchObject({ code: 'engine-crashed' });
  });

  test('an engine that cannot be loaded says why', async () => {
    const client = start({ addon: '/nowhere/vmoba.node' });
    await expect(client.describe()).rejects.toMatchObject({
      code: 'engine-unavailable',
      message: expect.stringContaining('/nowhere/vmoba.node'),
    });
  });

  test('silence during a call counts as hung, and the process is ended', async () => {
    const client = start({ silenceLimitMs: 1500 });
    const session = await open(client, 'hang at 0');
    await expect(session.step()).rejects.toMatchObject({
      code: 'engine-hung',
      message: expect.stringContaining('during step'),
    });
    expect(exists(client.pid)).toBe(false);
  });

  test('a slow step that shows life is not hung', async () => {
    const session = await open(start({ silenceLimitMs: 1500 }), 'very slow');
    await expect(session.step()).resolves.toMatchObject({ report: { step: 0 } });
  });

  test('idle time is not silence', async () => {
    const client = start({ silenceLimitMs: 1000 });
    await client.describe();
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await expect(client.describe()).resolves.toMatchObject({ build: 'faulty' });
  });

  test('is gone two seconds after its parent was killed', async () => {
    const parent = fork(fileURLToPath(new URL('../support/engineParent.ts', import.meta.url)), { execArgv: [] });
    const pid = await new Promise<number>((resolve) => parent.once('message', (message) => resolve(message as number)));
    expect(exists(pid)).toBe(true);
    parent.kill('SIGKILL');
    expect(await until(() => !exists(pid), 2000)).toBe(true);
  });
});
