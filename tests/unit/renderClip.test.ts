import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test } from 'vitest';
import { parseClipSettings } from '../../contract/clipSettings.ts';
import type { RenderRequest } from '../../contract/renderRequest.ts';
import type { EngineClient } from '../../main/engine/engineClient.ts';
import { EncodeClient } from '../../main/studio/encode/encodeClient.ts';
import { checkRequest } from '../../main/studio/render/checkRequest.ts';
import { openRawFrames } from '../../main/studio/render/rawFrames.ts';
import { renderClip, type RenderClipOptions } from '../../main/studio/render/renderClip.ts';
import type { RenderEvent, RenderOutcome, Take } from '../../main/studio/render/take.ts';
import { startFaultyEngine } from '../support/engine.ts';
import { writeModelFolder } from '../support/models.ts';
import { renderRequest } from '../support/requests.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-render-'));
const model = writeModelFolder(join(folder, 'model'));
const encoder = new EncodeClient();
const engines: EngineClient[] = [];
let runs = 0;

afterEach(() => Promise.all(engines.splice(0).map((engine) => engine.stop())));
afterAll(async () => {
  await encoder.stop();
  rmSync(folder, { recursive: true, force: true });
});

interface Run {
  outcome: Promise<RenderOutcome>;
  events: RenderEvent[];
  checkpoint: string;
  engine: EngineClient;
}

/** Starts a render on an engine of its own. */
async function start(changes: Partial<RenderRequest>, options: Partial<RenderClipOptions> = {}): Promise<Run> {
  const { request, card } = await checkRequest(renderRequest(model, changes));
  const engine = startFaultyEngine();
  engines.push(engine);
  const events: RenderEvent[] = [];
  const checkpoint = options.checkpoint?.path ?? join(folder, `${++runs}.checkpoint`);
  const outcome = renderClip({
    engine,
    request,
    card,
    openOutput: () =>
      openRawFrames({ path: join(folder, `${runs}.rgb`), width: request.width, height: request.height, fps: 8 }),
    checkpoint: { path: checkpoint, everyMs: 0 },
    onEvent: (event) => void events.push(event),
    ...options,
  });
  outcome.catch(() => {}); // awaited by the test
  return { outcome, events, checkpoint, engine };
}

async function takeOf(run: Run): Promise<Take> {
  const outcome = await run.outcome;
  if (outcome.state !== 'done') throw new Error(`ended as ${outcome.state}`);
  return outcome.take;
}

const kinds = (run: Run) => run.events.map((event) => event.kind).filter((kind) => kind !== 'progress');
const uninterrupted = (changes: Partial<RenderRequest>) => start(changes).then(takeOf);

describe('a render', () => {
  test('tells what happens in order', async () => {
    const run = await start({ steps: 2 });
    const take = await takeOf(run);
    expect(kinds(run)).toEqual([
      'planned',
      'text',
      'step',
      'checkpoint',
      'step',
      'checkpoint',
      'frames',
      'frames',
      'encoded',
    ]);
    expect(take).toMatchObject({ clip: { frames: 5, bytes: 5 * 32 * 16 * 3 }, resumed: null, peakBytes: 1e6 });
    expect(take.steps.map((report) => report.step)).toEqual([0, 1]);
  });

  test('ends in a playable file that carries its settings', async () => {
    const { request, card } = await checkRequest(renderRequest(model, { prompt: 'a red ball „here“' }));
    const path = join(folder, 'clip.mp4');
    const run = await start(request, {
      openOutput: (settings) =>
        encoder.open({ format: 'mp4', path, width: 32, height: 16, fps: 8, settings: JSON.stringify(settings) }),
    });
    const take = await takeOf(run);
    const { model: _, ...kept } = request;
    expect(parseClipSettings(await encoder.readComment(path))).toMatchObject({
      model: { id: card.id, name: card.name },
      request: kept,
      latentHash: take.latentHash,
    });
  });

  test('with the same seed gives the same frames, with another one another latent', async () => {
    const [first, second, other] = await Promise.all([
      uninterrupted({}),
      uninterrupted({}),
      uninterrupted({ seed: '2' }),
    ]);
    expect(second.framesHash).toBe(first.framesHash);
    expect(second.latentHash).toBe(first.latentHash);
    expect(other.latentHash).not.toBe(first.latentHash);
  });
});

describe('an interrupted render', () => {
  test.each([1, 2, 3])('killed before step %i ends in the same latent when resumed', async (step) => {
    const prompt = `crash at ${step}`;
    const run = await start({ prompt });
    await expect(run.outcome).rejects.toMatchObject({ code: 'engine-crashed' });
    // The same request on an engine that no longer crashes: only the planted fault differs.
    const reference = await reached(prompt, step);
    expect(JSON.parse(readFileSync(run.checkpoint, 'utf8'))).toMatchObject({ step, latent: reference });
  });

  async function reached(prompt: string, step: number): Promise<string> {
    const run = await start(
      { prompt },
      { shouldPause: () => run.events.filter((event) => event.kind === 'step').length === step },
    );
    await expect(run.outcome).resolves.toEqual({ state: 'paused', step });
    return (JSON.parse(readFileSync(run.checkpoint, 'utf8')) as { latent: string }).latent;
  }

  test('paused and resumed goes on where it was, to the same end', async () => {
    const reference = await uninterrupted({});
    const first = await start({}, { shouldPause: () => true });
    await expect(first.outcome).resolves.toEqual({ state: 'paused', step: 1 });
    const second = await start({}, { checkpoint: { path: first.checkpoint } });
    const take = await takeOf(second);
    expect(take.resumed).toEqual({ fromStep: 1, bitIdentical: true, reason: null });
    expect(take.steps.map((report) => report.step)).toEqual([1, 2, 3]);
    expect([take.latentHash, take.framesHash]).toEqual([reference.latentHash, reference.framesHash]);
  });

  test('cancelled in the middle of a step stops within a second and keeps the step before', async () => {
    const abort = new AbortController();
    const run = await start(
      { prompt: 'slow', steps: 3 },
      {
        signal: abort.signal,
        onEvent: (event) => {
          run.events.push(event);
          const inSecondStep = run.events.some((earlier) => earlier.kind === 'step');
          if (inSecondStep && event.kind === 'progress') abort.abort();
        },
      },
    );
    const asked = new Promise<number>((resolve) =>
      abort.signal.addEventListener('abort', () => resolve(performance.now())),
    );
    await expect(run.outcome).rejects.toMatchObject({ code: 'cancelled' });
    expect(performance.now() - (await asked)).toBeLessThan(1000);
    expect(JSON.parse(readFileSync(run.checkpoint, 'utf8'))).toMatchObject({ step: 1 });
    expect(run.engine.alive).toBe(true);
  });

  test('an engine that ignores the cancellation is ended', async () => {
    const abort = new AbortController();
    const onEvent = ({ kind }: RenderEvent) => {
      // The step that hangs comes next.
      if (kind === 'checkpoint') setTimeout(() => abort.abort(), 300);
    };
    const run = await start({ prompt: 'hang at 1' }, { signal: abort.signal, onEvent });
    await expect(run.outcome).rejects.toMatchObject({ code: 'cancelled' });
    await expect(run.engine.exited).resolves.toMatchObject({ signal: 'SIGKILL' });
  });

  test('cancelled before it began does nothing', async () => {
    const run = await start({}, { signal: AbortSignal.abort() });
    await expect(run.outcome).rejects.toMatchObject({ code: 'cancelled' });
    expect(run.events).toEqual([]);
  });

  test('leaves no half file behind', async () => {
    const run = await start(
      {},
      {
        openOutput: async () => {
          const output = await openRawFrames({ path: join(folder, 'half.rgb'), width: 32, height: 16, fps: 8 });
          return { ...output, write: () => Promise.reject(new Error('planted')) };
        },
      },
    );
    await expect(run.outcome).rejects.toThrow('planted');
    expect(readdirSync(folder).filter((name) => name.includes('half'))).toEqual([]);
    expect(existsSync(run.checkpoint)).toBe(true);
  });
});
