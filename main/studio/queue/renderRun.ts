/**
 * One run of one render: from the queue's row to the take's row, or as far as it gets. Everything durable happens in an order that
 * survives an end at any point: checkpoint, clip, poster, maps, then one transaction, then the work folder goes.
 */
import { existsSync } from 'node:fs';
import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { StudioError } from '../../../contract/errors.ts';
import type { MapsHeader } from '../../../contract/statistics.ts';
import type { Take } from '../../../contract/takes.ts';
import type { StepOptions } from '../../engine/binding.ts';
import type { EngineClient } from '../../engine/engineClient.ts';
import type { EncodeClient } from '../encode/encodeClient.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { moveIntoPlace, temporaryBeside } from '../files/temporary.ts';
import { failpoint } from '../failpoints.ts';
import type { Library } from '../library/libraryClient.ts';
import type { StoredRender } from '../library/tables/renders.ts';
import { renderClip } from '../render/renderClip.ts';
import type { ModelCard } from '../render/modelCard.ts';
import type { RenderEvent, Take as RenderedTake } from '../render/take.ts';
import type { RenderRequest } from '../../../contract/renderRequest.ts';
import { packStatistics, type StoredStatistics } from '../statistics/blob.ts';
import { appendMaps, listMaps } from '../statistics/mapsFile.ts';
import { meanDensity, speedupOf } from '../statistics/speedup.ts';
import { takeFileNames } from './takeFiles.ts';
import { type JournalEntry, WorkFolder } from './workFolder.ts';

export interface RenderRunOptions {
  library: Library;
  engine: EngineClient;
  encoder: EncodeClient;
  render: StoredRender;
  request: RenderRequest;
  card: ModelCard;
  checkpointEveryMs: number;
  signal: AbortSignal;
  shouldPause(): boolean;
  /** What watchers want of a step. */
  wanted(step: number): StepOptions;
  onEvent(event: RenderEvent): void;
  /** Seconds of a dense step timed before for this model and size. */
  calibratedDenseSeconds: number | null;
}

export type RunOutcome =
  | { state: 'done'; take: Take; rendered: RenderedTake; statistics: StoredStatistics }
  | { state: 'paused'; step: number };

/** Steps whose maps are kept with the take: enough to see attention settle. */
export function mappedSteps(steps: number): number[] {
  return [...new Set([0.25, 0.5, 0.75, 1].map((share) => Math.max(0, Math.round(share * steps) - 1)))];
}

/** Errors: those of renderClip, and disk-full or io from the files around it. */
export async function runRender(options: RenderRunOptions): Promise<RunOutcome> {
  const { library, encoder, render, request, card } = options;
  const names = takeFileNames(render);
  const clipPath = join(library.paths.takes, names.clip);
  const work = new WorkFolder(library.paths.work, render.id);
  await work.create();
  const recorder = new Recorder(options, work);
  const outcome = await renderClip({
    engine: options.engine,
    request,
    card,
    checkpoint: { path: work.checkpoint, everyMs: options.checkpointEveryMs, discardUnusable: true },
    signal: options.signal,
    shouldPause: options.shouldPause,
    stepOptions: (step) => recorder.stepOptions(step),
    onEvent: (event) => recorder.take(event),
    openOutput: (settings) =>
      encoder.open({
        path: clipPath,
        format: render.output.format,
        rateFactor: render.output.rateFactor,
        width: request.width,
        height: request.height,
        fps: request.fps,
        settings: JSON.stringify(settings),
      }),
  });
  if (outcome.state === 'paused') return outcome;
  failpoint('clip-moved');
  return finish(options, work, outcome.take);
}

/** Keeps what happens: journal and maps. A failure to write them ends the run at the event it came with. */
class Recorder {
  readonly #options: RenderRunOptions;
  readonly #work: WorkFolder;
  readonly #kept: ReadonlySet<number>;
  /** What comes before the first step. */
  readonly #opening: JournalEntry[] = [];
  #firstOfProcess = true;

  constructor(options: RenderRunOptions, work: WorkFolder) {
    this.#options = options;
    this.#work = work;
    this.#kept = new Set(mappedSteps(options.request.steps));
  }

  stepOptions(step: number): StepOptions {
    const wanted = this.#options.wanted(step);
    if (wanted.maps || !this.#kept.has(step)) return wanted;
    return { ...wanted, maps: { layer: 0, words: true } };
  }

  /** Resolves when it is written. Errors: disk-full, io. */
  take(event: RenderEvent): Promise<void> | undefined {
    let written: Promise<void> | undefined;
    switch (event.kind) {
      case 'planned':
        this.#open({ kind: 'planned', plan: event.plan });
        break;
      case 'text':
        this.#open({ kind: 'text', text: event.text });
        break;
      case 'resumed':
        this.#work.append({ kind: 'resumed', resumed: event.resumed });
        break;
      case 'checkpoint-refused':
        this.#work.clear();
        for (const entry of this.#opening) this.#work.append(entry);
        break;
      case 'step':
        this.#work.append({ kind: 'step', report: event.report, first: this.#firstOfProcess });
        this.#firstOfProcess = false;
        if (event.maps && this.#kept.has(event.report.step)) written = this.#keepMaps(event.maps);
        break;
      case 'checkpoint':
        written = this.#record(event.step);
        break;
      case 'progress':
      case 'frames':
      case 'encoded':
        break;
    }
    this.#options.onEvent(event);
    return written;
  }

  #open(entry: JournalEntry): void {
    this.#opening.push(entry);
    this.#work.append(entry);
  }

  async #keepMaps(maps: { header: unknown; data: Uint8Array }): Promise<void> {
    try {
      await appendMaps(this.#work.maps, maps.header as MapsHeader, maps.data);
    } catch (error) {
      throw fileFailure(error, `Writing ${this.#work.maps}`);
    }
  }

  async #record(step: number): Promise<void> {
    failpoint('checkpoint-seen');
    const { library, render } = this.#options;
    await library.renders.setStepsDone(render.id, step);
    failpoint('checkpoint-recorded');
  }
}

async function finish(options: RenderRunOptions, work: WorkFolder, rendered: RenderedTake): Promise<RunOutcome> {
  const { library, encoder, render, request, card } = options;
  const { takes } = library.paths;
  const names = takeFileNames(render);
  const poster = join(takes, names.poster);
  // A third into the clip something is going on; the first frame is often empty.
  const hasPoster = await encoder.extractFrame(join(takes, names.clip), Math.floor(request.frames / 3), poster).then(
    () => true,
    (error: unknown) => {
      // A picture is no reason to lose a clip, where another try would not help.
      if (error instanceof StudioError && error.code === 'unsupported') return false;
      throw error;
    },
  );
  failpoint('poster-written');
  const maps = existsSync(work.maps) ? listMaps(work.maps) : [];
  if (maps.length > 0) await copyMaps(work.maps, join(takes, names.maps));
  failpoint('maps-written');

  const journal = work.read();
  const firstSteps = new Set(journal.firstSteps);
  const speedup = speedupOf(journal.plan, journal.steps, firstSteps, options.calibratedDenseSeconds);
  const sampling = journal.steps.reduce((sum, step) => sum + step.seconds.total, 0);
  const { loading, text, decoding, encoding } = rendered.timings;
  const seconds = {
    loading,
    text,
    sampling,
    decoding,
    encoding,
    total: loading + text + sampling + decoding + encoding,
  };
  const statistics: StoredStatistics = {
    plan: journal.plan,
    text: journal.text,
    steps: journal.steps,
    firstSteps: journal.firstSteps,
    seconds,
    mappedSteps: maps.map(({ header: { step, layer, head } }) => ({ step, layer, head })),
  };
  const { clip } = rendered;
  const take = await library.takes.finish({
    renderId: render.id,
    modelName: card.name,
    file: `takes/${names.clip}`,
    poster: hasPoster ? `takes/${names.poster}` : null,
    maps: maps.length > 0 ? `takes/${names.maps}` : null,
    clip: {
      format: render.output.format,
      width: clip.width,
      height: clip.height,
      frames: clip.frames,
      fps: clip.fps,
      bytes: clip.bytes,
    },
    latentHash: rendered.latentHash,
    framesHash: rendered.framesHash,
    bitIdentical: journal.differences.length === 0,
    differenceReason: journal.differences[0] ?? null,
    renderSeconds: seconds.total,
    peakBytes: Math.max(0, ...journal.steps.map((step) => step.peakBytes)),
    meanDensity: meanDensity(journal.steps),
    speedup,
    statistics: packStatistics(statistics),
  });
  failpoint('take-committed');
  await work.remove();
  failpoint('work-removed');
  return { state: 'done', take, rendered, statistics };
}

async function copyMaps(source: string, path: string): Promise<void> {
  const temporary = temporaryBeside(path);
  try {
    await copyFile(source, temporary);
    failpoint('maps-copied');
    await moveIntoPlace(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw fileFailure(error, `Writing ${path}`);
  }
}
