/**
 * The queue at work: takes the next render whenever one waits and nothing holds it back, runs it, and decides what an end means.
 * What must survive is in the library; what is here follows from it.
 */
import { statfsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { StudioError, toErrorShape } from '../../../contract/errors.ts';
import type { QueueStatus } from '../../../contract/queue.ts';
import type { Render } from '../../../contract/renders.ts';
import type { MapsHeader } from '../../../contract/statistics.ts';
import type { StudioSettings } from '../../../contract/settings.ts';
import type { EncodeClient } from '../encode/encodeClient.ts';
import type { EngineHost } from '../engineHost.ts';
import type { Estimator } from '../estimates/estimator.ts';
import type { Publish } from '../eventHub.ts';
import { failpoint } from '../failpoints.ts';
import { freeBytes } from '../files/space.ts';
import type { Library } from '../library/libraryClient.ts';
import type { StoredRender } from '../library/tables/renders.ts';
import type { Requests } from './requests.ts';
import type { RenderEvent } from '../render/take.ts';
import { CrashCount, crashesAllowed, judge } from './failures.ts';
import { LiveRender } from './liveRender.ts';
import { runRender } from './renderRun.ts';
import type { Watchers } from './watchers.ts';
import { WorkFolder } from './workFolder.ts';

export interface QueueRunnerOptions {
  library: Library;
  engines: EngineHost;
  encoder: EncodeClient;
  estimator: Estimator;
  requests: Requests;
  watchers: Watchers;
  publish: Publish;
  /** Called when the database is found damaged. */
  onCorrupt(error: StudioError): void;
  /** How often to look for space while waiting for it. */
  spaceCheckMs?: number;
}

/** What someone wants of the running render beside its going on. */
type Wish = 'pause' | 'pause-all' | 'cancel' | 'close' | 'space';

interface Running {
  render: StoredRender;
  live: LiveRender;
  controller: AbortController;
  wish: Wish | null;
  toldAt: number;
  minimumFreeBytes: number;
  /** Resolves when the run has ended, however. */
  ended: Promise<void>;
}

type Hold =
  | { kind: 'paused'; reason: string | null }
  /** `enough`: free bytes from which on it is worth another try. */
  | { kind: 'waiting-for-space'; reason: string; enough: number };

const tellEveryMs = 250;
/** What changes within this time is told as one change. */
const tellQueueAfterMs = 20;
const restartDelayMs = 200;
const worthwhileBytes = 1024 * 1024;

export class QueueRunner {
  readonly #options: QueueRunnerOptions;
  #running: Running | undefined;
  /** Why nothing is taken; null while the queue runs. */
  #hold: Hold | null = { kind: 'paused', reason: null };
  #finishing = false;
  #closing = false;
  #wake: () => void = () => {};
  #loop: Promise<void> = Promise.resolve();
  #untold = false;
  #telling = false;

  constructor(options: QueueRunnerOptions) {
    this.#options = options;
  }

  /** @param work False: keeps the queue's books without rendering. */
  async start(work = true): Promise<void> {
    const intent = await this.#options.library.settings.queueIntent();
    this.#hold = intent === 'paused' ? { kind: 'paused', reason: null } : null;
    if (work) this.#loop = this.#work();
  }

  /** Something waits, perhaps. */
  wake(): void {
    this.#wake();
  }

  async status(): Promise<QueueStatus> {
    const { running, ...counts } = await this.#options.library.renders.counts();
    // Marked as running by the library, which could not be told of the end: they wait, as `shown` says.
    counts.queued += Math.max(0, running - (this.#running ? 1 : 0));
    return {
      mode: this.#hold ? this.#hold.kind : this.#finishing ? 'finishing' : 'running',
      reason: this.#hold?.reason ?? null,
      runningId: this.#running?.render.id ?? null,
      ...counts,
      etaSeconds: await this.#eta(counts.queued),
    };
  }

  /** Live progress laid over a stored render. */
  shown(render: StoredRender): Render {
    const running = this.#running?.render.id === render.id ? this.#running : undefined;
    if (render.state === 'running' && !running) return { ...render, state: 'queued', progress: null };
    const pausing = running?.wish === 'pause' || running?.wish === 'pause-all' || running?.wish === 'space';
    return { ...render, progress: running ? { ...running.live.progress(), pausing } : null };
  }

  get runningId(): string | null {
    return this.#running?.render.id ?? null;
  }

  /** After the current step, with a checkpoint. */
  async pauseAll(): Promise<void> {
    await this.#options.library.settings.setQueueIntent('paused');
    this.#finishing = false;
    this.#hold = { kind: 'paused', reason: null };
    if (this.#running) this.#running.wish ??= 'pause-all';
    this.tell();
  }

  async finishCurrent(): Promise<void> {
    await this.#options.library.settings.setQueueIntent('paused');
    if (this.#running) this.#finishing = true;
    else this.#hold = { kind: 'paused', reason: null };
    this.tell();
  }

  async resumeAll(): Promise<void> {
    await this.#options.library.settings.setQueueIntent('running');
    this.#hold = null;
    this.#finishing = false;
    if (this.#running?.wish === 'pause-all') this.#running.wish = null;
    this.#wake();
    this.tell();
  }

  /** Errors: conflict. */
  async pause(id: string): Promise<StoredRender> {
    if (this.#running?.render.id === id) {
      this.#running.wish ??= 'pause';
      return this.#changed(await this.#options.library.renders.get(id));
    }
    return this.#changed(await this.#options.library.renders.changeState(id, ['queued'], 'paused'));
  }

  async resume(id: string): Promise<StoredRender> {
    const running = this.#running;
    if (running?.render.id === id && running.wish === 'pause') {
      running.wish = null;
      return this.#changed(running.render);
    }
    const render = this.#changed(await this.#options.library.renders.changeState(id, ['paused'], 'queued'));
    this.#wake();
    return render;
  }

  async retry(id: string): Promise<StoredRender> {
    const render = await this.#options.library.renders.changeState(id, ['failed', 'cancelled'], 'queued');
    this.#wake();
    return this.#changed(render);
  }

  /** Resolves when it has stopped. Errors: conflict. */
  async cancel(id: string): Promise<StoredRender> {
    const running = this.#running;
    if (running?.render.id === id) {
      running.wish = 'cancel';
      running.controller.abort();
      await running.ended;
      return this.#options.library.renders.get(id);
    }
    return this.#changed(await this.#options.library.renders.changeState(id, ['queued', 'paused'], 'cancelled'));
  }

  /** Stops the running render with a checkpoint at its last finished step, and takes nothing more. */
  async close(): Promise<void> {
    this.#closing = true;
    const running = this.#running;
    if (running) {
      running.wish ??= 'close';
      running.controller.abort();
    }
    this.#wake();
    await this.#loop;
  }

  /** Tells everyone, soon, how the queue stands: many changes at once are told once, and no caller waits for it. */
  tell(): void {
    this.#untold = true;
    if (!this.#telling) void this.#tellLatest();
  }

  async #tellLatest(): Promise<void> {
    this.#telling = true;
    while (this.#untold) {
      await delay(tellQueueAfterMs);
      this.#untold = false;
      // Where the library fails, the loop finds out too, and says what to do.
      const status = await this.status().catch(() => undefined);
      if (status && !this.#closing) this.#options.publish('queue.changed', status);
    }
    this.#telling = false;
  }

  async #work(): Promise<void> {
    while (!this.#closing) {
      const woken = new Promise<void>((resolve) => (this.#wake = resolve));
      try {
        if (this.#hold?.kind === 'waiting-for-space') await this.#lookForSpace(woken);
        else if (this.#hold || !(await this.#next())) await woken;
      } catch (error) {
        // The library itself fails: hold, so that nothing is tried over and over.
        this.#holdBack(error);
        if (error instanceof StudioError && error.code === 'library-corrupt') this.#options.onCorrupt(error);
        this.tell();
      }
    }
  }

  /** Runs the next render; false when none waits. */
  async #next(): Promise<boolean> {
    const { library } = this.#options;
    // After an end that could not be recorded: what is still marked as running goes on first.
    await library.renders.requeueInterrupted();
    const waiting = await library.renders.peekNext();
    if (!waiting) return false;
    const settings = await library.settings.get();
    if (!(await this.#hasRoom(waiting, settings))) return true;
    const render = await library.renders.takeNext();
    if (!render || this.#closing) return false;
    if (this.#hold) {
      // Somebody paused the queue while it looked what comes next.
      await library.renders.putBackFirst(render.id);
      return false;
    }
    failpoint('render-started');
    let end: () => void = () => {};
    const running: Running = {
      render,
      live: new LiveRender(render.id, render.settings.steps, render.stepsDone, null),
      controller: new AbortController(),
      wish: null,
      toldAt: 0,
      minimumFreeBytes: settings.minimumFreeBytes,
      ended: new Promise((resolve) => (end = resolve)),
    };
    this.#running = running;
    this.#options.engines.setRendering(true);
    this.#options.publish('renders.changed', this.shown(render));
    this.tell();
    try {
      await this.#run(running, settings);
    } finally {
      this.#running = undefined;
      this.#options.engines.setRendering(false);
      end();
      if (this.#finishing) {
        this.#finishing = false;
        this.#hold ??= { kind: 'paused', reason: null };
      }
      const now = await library.renders.get(render.id).catch(() => undefined);
      if (now) this.#options.publish('renders.changed', this.shown(now));
      this.tell();
    }
    return true;
  }

  /** Runs until it is done, wanted otherwise, or beyond help. Errors: those of the library. */
  async #run(running: Running, settings: StudioSettings): Promise<void> {
    const { library } = this.#options;
    const { id } = running.render;
    const crashes = new CrashCount();
    for (;;) {
      try {
        const state = await this.#attempt(running, settings);
        if (state === 'paused') await this.#settlePause(running);
        return;
      } catch (error) {
        if (running.wish === 'cancel') return void (await library.renders.changeState(id, ['running'], 'cancelled'));
        if (running.wish === 'close') return void (await library.renders.putBackFirst(id));
        const verdict = judge(error);
        switch (verdict.kind) {
          case 'again': {
            await library.renders.countEngineCrash(id);
            const { live } = running;
            const place =
              live.phase === 'sampling' ? `step ${live.step + 1} of ${running.render.settings.steps}` : live.phase;
            if (crashes.add(place) < crashesAllowed) break;
            const reason = `It ended ${crashesAllowed} times at ${place}. The last time: ${(error as Error).message}`;
            const failure = new StudioError((error as StudioError).code, reason);
            await library.renders.changeState(id, ['running'], 'failed', toErrorShape(failure));
            return;
          }
          case 'again-uncounted':
            break;
          case 'wait-for-space':
          case 'pause-queue':
            this.#holdBack(error);
            await library.renders.putBackFirst(id);
            return;
          case 'fail':
            await library.renders.changeState(id, ['running'], 'failed', toErrorShape(error));
            return;
        }
        if (running.wish === 'pause' || running.wish === 'pause-all') return this.#settlePause(running);
        await delay(restartDelayMs);
        running.render = await library.renders.get(id);
        running.live = new LiveRender(id, running.render.settings.steps, running.render.stepsDone, null);
      }
    }
  }

  async #attempt(running: Running, settings: StudioSettings): Promise<'done' | 'paused'> {
    const { library, engines, encoder, estimator, requests, watchers } = this.#options;
    const { id } = running.render;
    const { request, card } = await requests.resolve(running.render.settings);
    const engine = engines.renderer(settings.engineNice);
    // Not for its own sake: a render that cannot be compared is still a render.
    const { signal } = running.controller;
    const calibratedDenseSeconds = await estimator.timeDenseStep(engine, request, card, signal).catch(() => null);
    if (signal.aborted) throw new StudioError('cancelled', 'The render was cancelled.');
    const outcome = await runRender({
      library,
      engine,
      encoder,
      request,
      card,
      render: running.render,
      checkpointEveryMs: 1000 * settings.checkpointSeconds,
      signal,
      shouldPause: () => this.#shouldPause(running),
      wanted: () => watchers.wanted(id),
      onEvent: (event) => this.#event(running, event),
      calibratedDenseSeconds,
    });
    if (outcome.state === 'paused') return 'paused';
    this.#options.publish('takes.changed', outcome.take);
    this.#options.publish('projects.changed', await library.projects.get(outcome.take.projectId));
    // The clip is there; what could be learned from it can wait for the next one.
    await estimator.learn(request, card, outcome.rendered, outcome.statistics).catch(() => {});
    return 'done';
  }

  #shouldPause(running: Running): boolean {
    if (running.wish === null && free(this.#options.library.paths.folder) < running.minimumFreeBytes)
      running.wish = 'space';
    return running.wish !== null;
  }

  async #settlePause(running: Running): Promise<void> {
    const { library } = this.#options;
    const { id } = running.render;
    switch (running.wish) {
      case 'pause':
        await library.renders.changeState(id, ['running'], 'paused');
        break;
      case 'cancel':
        await library.renders.changeState(id, ['running'], 'cancelled');
        break;
      case 'space':
        this.#hold = {
          kind: 'waiting-for-space',
          reason: lowSpace(running.minimumFreeBytes),
          enough: running.minimumFreeBytes,
        };
        await library.renders.putBackFirst(id);
        break;
      case 'pause-all':
      case 'close':
      case null:
        await library.renders.putBackFirst(id);
        break;
    }
    failpoint('pause-recorded');
  }

  #event(running: Running, event: RenderEvent): void {
    const { publish } = this.#options;
    const { id } = running.render;
    const phaseChanged = running.live.take(event);
    switch (event.kind) {
      case 'text':
        publish('renders.text', { id, text: event.text });
        break;
      case 'step':
        publish('renders.step', { id, step: event.report });
        if (event.preview) publish('renders.preview', { id, step: event.report.step, ...event.preview });
        if (event.maps) publish('renders.maps', { id, header: event.maps.header as MapsHeader, data: event.maps.data });
        break;
      case 'planned':
      case 'progress':
      case 'resumed':
      case 'checkpoint':
      case 'checkpoint-refused':
      case 'frames':
      case 'encoded':
        break;
    }
    const now = performance.now();
    if (!phaseChanged && now - running.toldAt < tellEveryMs) return;
    running.toldAt = now;
    const { progress } = this.shown(running.render);
    if (progress) publish('renders.progress', { id, progress });
  }

  #holdBack(error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    const full = error instanceof StudioError && error.code === 'disk-full';
    // As full as it is now it was too full.
    const enough = full ? free(this.#options.library.paths.folder) + worthwhileBytes : 0;
    this.#hold = full ? { kind: 'waiting-for-space', reason, enough } : { kind: 'paused', reason };
  }

  /** Errors: none; a render that cannot be judged is tried. */
  async #hasRoom(render: StoredRender, settings: StudioSettings): Promise<boolean> {
    const { library, requests, estimator } = this.#options;
    const free = await freeBytes(library.paths.folder);
    let needed = 0;
    try {
      const { request, card } = await requests.resolve(render.settings);
      needed = await estimator.diskBytes(request, card);
    } catch {
      // What is wrong with it, running it will say.
    }
    if (free >= needed + settings.minimumFreeBytes) return true;
    const enough = needed + settings.minimumFreeBytes;
    this.#hold ??= { kind: 'waiting-for-space', reason: lowSpace(enough), enough };
    this.tell();
    return false;
  }

  async #lookForSpace(woken: Promise<void>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const later = new Promise<void>((resolve) => (timer = setTimeout(resolve, this.#options.spaceCheckMs ?? 3000)));
    await Promise.race([woken, later]);
    clearTimeout(timer);
    if (this.#closing || this.#hold?.kind !== 'waiting-for-space') return;
    if (free(this.#options.library.paths.folder) < this.#hold.enough) return;
    // Tried again: a render that needs more than there is puts the hold back.
    this.#hold = null;
    this.tell();
  }

  #changed(render: StoredRender): StoredRender {
    this.#options.publish('renders.changed', this.shown(render));
    this.tell();
    return render;
  }

  async #eta(queued: number): Promise<number | null> {
    const rest = this.#running?.live.progress().etaSeconds ?? null;
    if (queued === 0) return this.#running ? rest : 0;
    const { library, requests, estimator } = this.#options;
    const sample = await library.renders.firstQueued(1);
    const settings = sample[0];
    if (!settings) return rest;
    try {
      const { request, card } = await requests.resolve(settings);
      const { seconds } = await estimator.estimate(request, card);
      return seconds === null ? null : (rest ?? 0) + queued * seconds.expected;
    } catch {
      return null; // a render with a problem of its own says nothing about time
    }
  }

  /** For statistics of an unfinished render. */
  journalOf(id: string) {
    return new WorkFolder(this.#options.library.paths.work, id).read();
  }
}

function free(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

const lowSpace = (needed: number) =>
  `The disk is nearly full: ${Math.ceil(needed / 1e6)} MB are needed. Free some space; rendering goes on by itself.`;
