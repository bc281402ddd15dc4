/** Estimates from this machine's own finished renders, and the short measurements that stand in before there are any. */
import { StudioError } from '../../../contract/errors.ts';
import type { Estimate } from '../../../contract/estimates.ts';
import type { RenderPlan } from '../../../contract/plan.ts';
import { policyPresets } from '../../../contract/attentionPolicy.ts';
import type { RenderRequest } from '../../../contract/renderRequest.ts';
import type { StepReport } from '../../engine/binding.ts';
import type { EngineClient, EngineSession } from '../../engine/engineClient.ts';
import type { EngineHost } from '../engineHost.ts';
import { freeBytes } from '../files/space.ts';
import type { Library } from '../library/libraryClient.ts';
import type { StoredTiming } from '../library/tables/timings.ts';
import type { Fingerprints } from '../models/fingerprints.ts';
import type { ModelCard } from '../render/modelCard.ts';
import { outsideTrainedRange } from '../render/checkRequest.ts';
import type { RenderTimings, Take } from '../render/take.ts';
import type { StoredStatistics } from '../statistics/blob.ts';
import { isDense, median } from '../statistics/speedup.ts';
import { intervalOf, type Phases, predictFrom, workOf } from './forecast.ts';
import type { PlanCache } from './plans.ts';
import { timingSample } from './timings.ts';

export interface EstimatorOptions {
  library: Library;
  engines: EngineHost;
  plans: PlanCache;
  fingerprints: Fingerprints;
}

/** Bytes of video per pixel before any clip has been seen. */
const assumedClipBytesPerPixel = 0.15;
const consideredSamples = 40;
/** A dense step is timed for comparison only where it is quick: seconds. */
const longestCalibrationSeconds = 5;
/** Before any history: what any machine manages, in operations per second. */
const slowestFlops = 5e9;

export class Estimator {
  readonly #options: EstimatorOptions;

  constructor(options: EstimatorOptions) {
    this.#options = options;
  }

  /** Errors: those of planning. */
  async estimate(request: RenderRequest, card: ModelCard): Promise<Estimate> {
    const { library, plans } = this.#options;
    const plan = await plans.get(request);
    const work = workOf(plan, request.policy, request.steps);
    const timings = await this.#similar(request, card, plan);
    const predictions = timings.samples.map(({ sample }) => predictFrom(sample, plan, work));
    const totals = predictions.map((phases) => phases.loading + phases.text + phases.sampling + phases.decoding);
    const seconds = intervalOf(totals, timings.distance, timings.sameModel);
    const peak = timings.samples[0]?.sample.peakBytes;
    const disk = diskNeed(request, plan, timings.samples);
    const freeDiskBytes = await freeBytes(library.paths.folder);
    return {
      seconds,
      basis:
        seconds === null
          ? 'none'
          : timings.samples.every((one) => one.source === 'calibration')
            ? 'calibration'
            : 'history',
      samples: timings.samples.length,
      phases: typical(predictions),
      // The plan counts the engine's arrays; what the process has beside them shows only in practice.
      memoryBytes: timings.exact && peak ? Math.max(peak, plan.memory.peak) : plan.memory.peak,
      diskBytes: disk,
      freeDiskBytes,
      fitsMemory: plan.fitsLimit,
      fitsDisk: disk < freeDiskBytes,
      plan,
      expectedDensity: work.expectedDensity,
      flopSpeedup: work.flopSpeedup,
      warnings: [...outsideTrainedRange(request, card), ...plan.warnings],
    };
  }

  /** Bytes a render will leave on the disk, roughly. */
  async diskBytes(request: RenderRequest, card: ModelCard): Promise<number> {
    const plan = await this.#options.plans.get(request);
    return diskNeed(request, plan, (await this.#similar(request, card, plan)).samples);
  }

  /** Learns from a finished render. */
  async learn(request: RenderRequest, card: ModelCard, rendered: Take, statistics: StoredStatistics): Promise<void> {
    const { plan, steps } = statistics;
    // A resumed render's phases were spread over runs that nobody timed as a whole.
    if (!plan || steps.length === 0 || rendered.resumed) return;
    const pixels = request.width * request.height * request.frames;
    const sample = timingSample(plan, steps, new Set(statistics.firstSteps), rendered.timings, {
      bytes: rendered.clip.bytes,
      pixels,
    });
    await this.#options.library.timings.add(await this.#machine(request, plan), {
      model: await this.#options.fingerprints.of(card),
      tokens: plan.tokens,
      source: 'render',
      sample,
    });
    const dense = steps.filter((step) => isDense(step) && !statistics.firstSteps.includes(step.step));
    const denseSeconds = median(dense.map((step) => step.seconds.total));
    if (denseSeconds !== null) {
      await this.#options.library.timings.setDenseStepSeconds(await this.#denseKey(request, card, plan), denseSeconds);
    }
  }

  /** Seconds of a dense step of this model and size on this device, where one has been timed. */
  async denseStepSeconds(request: RenderRequest, card: ModelCard): Promise<number | null> {
    const plan = await this.#options.plans.get(request);
    return this.#options.library.timings.denseStepSeconds(await this.#denseKey(request, card, plan));
  }

  /**
   * Times a dense step for a render that will have none of its own, where that is quick and has not been done. Returns its
   * seconds, or null.
   */
  async timeDenseStep(
    engine: EngineClient,
    request: RenderRequest,
    card: ModelCard,
    signal: AbortSignal,
  ): Promise<number | null> {
    const plan = await this.#options.plans.get(request);
    if (workOf(plan, request.policy, request.steps).denseSteps > 0) return null;
    const known = await this.denseStepSeconds(request, card);
    if (known !== null) return known;
    const estimate = await this.estimate({ ...request, policy: policyPresets.dense }, card);
    const { linears, attentionDense } = plan.flops;
    const stepSeconds = estimate.phases
      ? estimate.phases.sampling / request.steps
      : (linears + attentionDense) / slowestFlops;
    if (stepSeconds > longestCalibrationSeconds) return null;
    const { steps } = await timedSteps(engine, { ...request, policy: policyPresets.dense }, signal);
    const seconds = steps.at(-1)?.seconds.total ?? null;
    if (seconds !== null) {
      await this.#options.library.timings.setDenseStepSeconds(await this.#denseKey(request, card, plan), seconds);
    }
    return seconds;
  }

  /** A few steps of the request's model at this size, kept for estimates. Returns the seconds of a step. */
  async calibrate(engine: EngineClient, request: RenderRequest, card: ModelCard): Promise<number> {
    const plan = await this.#options.plans.get(request);
    const { steps, timings } = await timedSteps(engine, request);
    const sample = timingSample(plan, steps, new Set([0]), timings, null);
    await this.#options.library.timings.add(await this.#machine(request, plan), {
      model: await this.#options.fingerprints.of(card),
      tokens: plan.tokens,
      source: 'calibration',
      sample,
    });
    const seconds = steps.at(-1)?.seconds.total;
    if (seconds === undefined) throw new StudioError('internal', 'The calibration made no step.');
    return seconds;
  }

  /** Speed-up that finished renders of this model and size showed at about this density; null where there were none. */
  async measuredSpeedup(request: RenderRequest, card: ModelCard, density: number): Promise<number | null> {
    const plan = await this.#options.plans.get(request);
    const { samples, sameModel } = await this.#similar(request, card, plan);
    const dense = await this.denseStepSeconds(request, card);
    if (!sameModel || dense === null) return null;
    const seconds = samples.flatMap(({ tokens, sample }) =>
      tokens === plan.tokens && sample.sparse && sample.density !== null && Math.abs(sample.density - density) < 0.03
        ? [sample.sparse.linears + sample.sparse.attention + sample.sparse.other]
        : [],
    );
    const sparse = median(seconds);
    return sparse ? dense / sparse : null;
  }

  /** Timings to go by: those of this model nearest in size, else other models' on the same machine. */
  async #similar(request: RenderRequest, card: ModelCard, plan: RenderPlan) {
    const machine = await this.#machine(request, plan);
    const model = await this.#options.fingerprints.of(card);
    const all = await this.#options.library.timings.list(machine, model, 200);
    const own = all.filter((timing) => timing.model === model);
    const sameModel = own.length > 0;
    const distanceOf = (timing: StoredTiming) => Math.abs(Math.log(timing.tokens / plan.tokens));
    const samples = (sameModel ? own : all).sort((a, b) => distanceOf(a) - distanceOf(b)).slice(0, consideredSamples);
    // Where the size itself has been seen often enough, other sizes have no say.
    const same = samples.filter((timing) => timing.tokens === plan.tokens && timing.source === 'render');
    const chosen = same.length >= 3 ? same : samples;
    const distance = chosen.length === 0 ? 0 : Math.min(...chosen.map(distanceOf));
    return { samples: chosen, sameModel, distance, exact: sameModel && distance === 0 };
  }

  /** Timings of one kind of machine and settings never mix with others. */
  async #machine(request: RenderRequest, plan: RenderPlan): Promise<string> {
    const { devices, threads } = await this.#options.engines.describe();
    const device = devices.find((candidate) => candidate.id === (request.device ?? 'cpu'));
    return [device?.name, device?.instructionSet, request.threads || threads, plan.precision].join('|');
  }

  async #denseKey(request: RenderRequest, card: ModelCard, plan: RenderPlan): Promise<string> {
    const guided = request.guidanceScale === 1 ? 'unguided' : 'guided';
    return [
      await this.#options.fingerprints.of(card),
      plan.grid.join('x'),
      guided,
      await this.#machine(request, plan),
    ].join('|');
  }
}

/** Two steps; the first packs weights and is only there for the second. Ended by ending the engine: nothing is lost with it. */
async function timedSteps(engine: EngineClient, { fps: _fps, ...request }: RenderRequest, signal?: AbortSignal) {
  const started = performance.now();
  const stop = () => engine.kill();
  signal?.addEventListener('abort', stop);
  let session: EngineSession | undefined;
  try {
    session = await engine.openSession({ ...request, prompt: 'a', negativePrompt: '' }, () => {});
    const loading = (performance.now() - started) / 1000;
    const text = await session.encodeText();
    const steps: StepReport[] = [];
    for (let step = 0; step < Math.min(2, request.steps); step++) steps.push((await session.step()).report);
    const timings: RenderTimings = { loading, text: text.seconds, sampling: 0, decoding: 0, encoding: 0, total: 0 };
    return { steps, timings };
  } finally {
    signal?.removeEventListener('abort', stop);
    await session?.close().catch(() => {}); // an engine that died has closed it
  }
}

function diskNeed(request: RenderRequest, plan: RenderPlan, samples: StoredTiming[]): number {
  const pixels = request.width * request.height * request.frames;
  const rates = samples.flatMap(({ sample }) =>
    sample.clipBytes && sample.pixels ? [sample.clipBytes / sample.pixels] : [],
  );
  const clip = pixels * (median(rates) ?? assumedClipBytesPerPixel);
  // The sampler's state is a few latents, twice while one replaces the other; poster and maps are small beside it.
  const checkpoint = 2 * 5 * 4 * plan.latentShape.reduce((product, size) => product * size, 1);
  return Math.ceil(clip + checkpoint + request.width * request.height * 3);
}

function typical(predictions: Phases[]): Phases | null {
  if (predictions.length === 0) return null;
  const of = (phase: keyof Phases) => median(predictions.map((one) => one[phase])) ?? 0;
  return { loading: of('loading'), text: of('text'), sampling: of('sampling'), decoding: of('decoding') };
}
