/**
 * One render from request to file: the function behind the command line and the queue. It owns a session on a running engine,
 * advances it step by step, keeps a checkpoint, and streams the decoded frames into an encoder. Whatever happens, the last
 * checkpoint continues it to the same latent, bit by bit.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import type { ClipSettings } from '../../../contract/clipSettings.ts';
import { StudioError } from '../../../contract/errors.ts';
import type { RenderRequest } from '../../../contract/renderRequest.ts';
import type { SessionRequest, StepOptions, StepReport } from '../../engine/binding.ts';
import type { EngineClient, EngineSession } from '../../engine/engineClient.ts';
import type { Encoder } from '../encode/encoder.ts';
import type { RestoredCheckpoint } from '../../engine/protocol.ts';
import { cleanPrompt } from '../prompt/cleanPrompt.ts';
import { outsideTrainedRange } from './checkRequest.ts';
import { type ModelCard, modelFingerprint } from './modelCard.ts';
import type { RenderEvent, RenderOutcome, RenderTimings, Resumed, Take, WrittenClip } from './take.ts';

export interface RenderClipOptions {
  engine: EngineClient;
  /** From `checkRequest`. */
  request: RenderRequest;
  card: ModelCard;
  /** Opens the file once there are frames for it. */
  openOutput: (settings: ClipSettings) => Promise<Encoder<WrittenClip>>;
  /** Where the sampler's state is kept; absent for renders too short to be worth it. An existing file is resumed. */
  checkpoint?: CheckpointOptions;
  /** Cancels: rejects with `cancelled` within a second, the checkpoint kept. */
  signal?: AbortSignal;
  /** Asked after each step: true stops there with the checkpoint written. */
  shouldPause?: () => boolean;
  /** What to ask of the step about to run: a preview, maps. */
  stepOptions?: (step: number) => StepOptions;
  /** What it returns is waited for: no checkpoint covers a step that is not yet written down. */
  onEvent?: (event: RenderEvent) => Promise<void> | undefined | void;
}

export interface CheckpointOptions {
  path: string;
  /** Shortest time between two checkpoints, default 5000. */
  everyMs?: number;
  /** Begin anew where the file is damaged or of another render, instead of failing. */
  discardUnusable?: boolean;
}

/** How long a session may take to follow a cancellation before the whole engine process is ended. */
const cancelGraceMs = 900;

/**
 * Errors: cancelled; bad-request, bad-model-file, out-of-memory … from the engine; engine-crashed and engine-hung, after which
 * the same call on a new engine resumes; encoder-crashed, disk-full, io from writing the file.
 */
export async function renderClip(options: RenderClipOptions): Promise<RenderOutcome> {
  const { signal } = options;
  const started = performance.now();
  throwIfCancelled(signal);
  const render = new Render(options);
  const onAbort = () => render.cancel();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await render.run(started);
  } catch (error) {
    // An engine ended because it would not stop in time: the cancellation is what happened.
    if (signal?.aborted) throw cancelled(error);
    throw error;
  } finally {
    signal?.removeEventListener('abort', onAbort);
    await render.close();
  }
}

class Render {
  readonly #options: RenderClipOptions;
  readonly #timings: RenderTimings = { loading: 0, text: 0, sampling: 0, decoding: 0, encoding: 0, total: 0 };
  #session: EngineSession | undefined;
  #lastCheckpoint = performance.now();
  #checkpointStep = -1;
  #graceTimer: NodeJS.Timeout | undefined;

  constructor(options: RenderClipOptions) {
    this.#options = options;
  }

  async run(started: number): Promise<RenderOutcome> {
    const { engine, request, card, onEvent } = this.#options;
    const sessionRequest = toSessionRequest(request);
    const plan = await this.#timed('loading', () => engine.plan(sessionRequest));
    await onEvent?.({ kind: 'planned', plan, warnings: [...outsideTrainedRange(request, card), ...plan.warnings] });

    const session = await this.#timed('loading', () =>
      engine.openSession(sessionRequest, (progress) => void onEvent?.({ kind: 'progress', progress })),
    );
    this.#session = session;
    throwIfCancelled(this.#options.signal);
    const text = await this.#timed('text', () => session.encodeText());
    await onEvent?.({ kind: 'text', text });

    const resumed = await this.#resume(session);
    const steps: StepReport[] = [];
    for (let step = resumed?.fromStep ?? 0; step < request.steps; step++) {
      steps.push(await this.#step(session, step));
      const last = step + 1 === request.steps;
      const pause = !last && (this.#options.shouldPause?.() ?? false);
      await this.#checkpoint(session, step + 1, last || pause);
      if (pause) return { state: 'paused', step: step + 1 };
    }

    const latentHash = await session.latentHash();
    const { clip, framesHash } = await this.#write(session, await this.#settings(latentHash));
    await onEvent?.({ kind: 'encoded', clip });
    this.#timings.total = seconds(started);
    const take: Take = {
      clip,
      latentHash,
      framesHash,
      timings: this.#timings,
      peakBytes: steps.at(-1)?.peakBytes ?? 0,
      steps,
      plan,
      resumed,
    };
    return { state: 'done', take };
  }

  /** Continues from an existing checkpoint. */
  async #resume(session: EngineSession): Promise<Resumed | null> {
    const { checkpoint, onEvent } = this.#options;
    if (!checkpoint || !existsSync(checkpoint.path)) return null;
    let restored: RestoredCheckpoint;
    try {
      restored = await session.restoreCheckpoint(checkpoint.path);
    } catch (error) {
      // The session is untouched by a checkpoint that it refuses.
      if (!checkpoint.discardUnusable || !(error instanceof StudioError) || error.field !== 'checkpoint') throw error;
      await discardCheckpoint(checkpoint);
      await onEvent?.({ kind: 'checkpoint-refused', reason: error.message });
      return null;
    }
    const { step, bitIdentical, reason } = restored;
    this.#checkpointStep = step;
    const resumed = { fromStep: step, bitIdentical, reason };
    await onEvent?.({ kind: 'resumed', resumed });
    return resumed;
  }

  async #step(session: EngineSession, step: number): Promise<StepReport> {
    const { stepOptions, onEvent, signal } = this.#options;
    try {
      throwIfCancelled(signal);
      const outcome = await this.#timed('sampling', () => session.step(stepOptions?.(step)));
      await onEvent?.({ kind: 'step', ...outcome });
      return outcome.report;
    } catch (error) {
      if (signal?.aborted && engineAnswered(error)) {
        // The session followed and still stands at the last finished step: keep it.
        clearTimeout(this.#graceTimer);
        await this.#checkpoint(session, step, true);
      }
      throw error;
    }
  }

  async #checkpoint(session: EngineSession, step: number, now: boolean): Promise<void> {
    const { checkpoint, onEvent } = this.#options;
    if (!checkpoint || step === 0 || step === this.#checkpointStep) return;
    if (!now && performance.now() - this.#lastCheckpoint < (checkpoint.everyMs ?? 5000)) return;
    const { bytes, latentHash } = await session.saveCheckpoint(checkpoint.path);
    this.#lastCheckpoint = performance.now();
    this.#checkpointStep = step;
    await onEvent?.({ kind: 'checkpoint', step, bytes, latentHash });
  }

  /** Decodes run by run and encodes each run while the next one is being decoded. */
  async #write(session: EngineSession, settings: ClipSettings): Promise<{ clip: WrittenClip; framesHash: string }> {
    const { request, openOutput, onEvent, signal } = this.#options;
    const encoder = await this.#timed('encoding', () => openOutput(settings));
    const hash = createHash('sha256');
    let frames = 0;
    let writing: Promise<unknown> = Promise.resolve();
    try {
      for (;;) {
        throwIfCancelled(signal);
        const run = await this.#timed('decoding', () => session.decodeFrames());
        await this.#timed('encoding', () => writing);
        if (!run) break;
        if (run.width !== request.width || run.height !== request.height) {
          throw new StudioError(
            'internal',
            `The engine decoded ${run.width}×${run.height} frames for a ${request.width}×${request.height} request.`,
          );
        }
        frames += run.count;
        hash.update(run.rgb);
        writing = encoder.write(run.rgb);
        writing.catch(() => {}); // awaited in the next round
        await onEvent?.({ kind: 'frames', frames, of: request.frames });
      }
      if (frames !== request.frames)
        throw new StudioError('internal', `The engine decoded ${frames} of ${request.frames} frames.`);
      const clip = await this.#timed('encoding', () => encoder.finish());
      return { clip, framesHash: hash.digest('hex') };
    } catch (error) {
      await encoder.abort().catch(() => {}); // the first error is the one that matters
      throw error;
    }
  }

  async #settings(latentHash: string): Promise<ClipSettings> {
    const { engine, request, card } = this.#options;
    const { model: _model, runAnyway: _runAnyway, memoryLimitBytes: _limit, ...kept } = request;
    const { version, build } = await engine.describe();
    return {
      format: 'vmoba-clip/1',
      model: { id: card.id, name: card.name, fingerprint: await modelFingerprint(card) },
      request: kept,
      engine: { version, build, device: request.device ?? 'cpu' },
      latentHash,
    };
  }

  cancel(): void {
    const { engine } = this.#options;
    // Loading cannot be interrupted from outside; ending the process can.
    this.#session?.cancel();
    this.#graceTimer = setTimeout(() => engine.kill(), this.#session ? cancelGraceMs : 0);
  }

  async close(): Promise<void> {
    await this.#session?.close().catch(() => {}); // a dead engine has closed it already
    clearTimeout(this.#graceTimer);
  }

  async #timed<Result>(phase: keyof RenderTimings, work: () => Promise<Result>): Promise<Result> {
    const started = performance.now();
    try {
      return await work();
    } finally {
      this.#timings[phase] += seconds(started);
    }
  }
}

/** Removes what a finished or abandoned render left for resuming. */
export async function discardCheckpoint(checkpoint: CheckpointOptions): Promise<void> {
  await rm(checkpoint.path, { force: true });
}

/** What the engine is asked: the prompts as models know them, and nothing about the file. */
function toSessionRequest({ fps: _fps, ...request }: RenderRequest): SessionRequest {
  return {
    ...request,
    prompt: cleanPrompt(request.prompt),
    negativePrompt: cleanPrompt(request.negativePrompt),
  };
}

const seconds = (since: number) => (performance.now() - since) / 1000;

function cancelled(cause?: unknown): StudioError {
  return new StudioError('cancelled', 'The render was cancelled.', { cause });
}

function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled();
}

/** Whether an error came from a living engine. */
function engineAnswered(error: unknown): boolean {
  return error instanceof StudioError && !error.code.startsWith('engine-');
}
