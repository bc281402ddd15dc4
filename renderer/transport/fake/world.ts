/** The invented studio's state, and its queue at work. */
import { policyPresets } from '../../../contract/attentionPolicy.ts';
import type { ClipExport } from '../../../contract/exports.ts';
import type { EventName, EventPayload, MethodOutput } from '../../../contract/index.ts';
import type { Download, Model } from '../../../contract/models.ts';
import type { Preset } from '../../../contract/presets.ts';
import type { Project } from '../../../contract/projects.ts';
import type { QueueStatus } from '../../../contract/queue.ts';
import type { RenderSettings } from '../../../contract/renderSettings.ts';
import type { Render } from '../../../contract/renders.ts';
import { type StudioSettings, studioSettings } from '../../../contract/settings.ts';
import type { RenderStatistics, StepStatistics } from '../../../contract/statistics.ts';
import type { Take } from '../../../contract/takes.ts';
import { planOf } from './planning.ts';
import { mapsOf, previewOf, stepOf } from './rendering.ts';

export interface WorldOptions {
  /** Finished takes to begin with. */
  takes?: number;
  /** Renders that wait. */
  waiting?: number;
  /** Milliseconds of a step; null: renders stand still until `world.advance`. */
  stepMs?: number | null;
  settings?: Partial<StudioSettings>;
}

type Publish = <Name extends EventName>(name: Name, payload: EventPayload<Name>) => void;

export const prompts = [
  'a red ball bounces on a blue floor',
  'a green square moves to the right',
  'a yellow triangle spins on a black background',
  'a small white circle falls slowly',
  'a purple ball rolls on a white floor',
  'an orange square grows on a teal background',
];

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? null;

export function createWorld(options: WorldOptions, publish: Publish) {
  let ids = 0;
  const id = (kind: string) => `${kind}_${(++ids).toString(36).padStart(20, '0')}`;
  const now = () => 1_764_000_000_000 + ids * 60_000;
  const stepMs = options.stepMs === undefined ? 700 : options.stepMs;

  const nano: Model = {
    id: 'nano',
    name: 'Nano',
    licence: 'GPL-3.0-or-later',
    origin: 'embedded',
    state: 'ok',
    reason: null,
    folder: '/opt/vmoba-studio/resources/models/nano',
    bytes: 18_300_000,
    fingerprint: 'nano',
    limits: { sideMultiple: 16, minSide: 64, maxTrainedSide: 256, minFrames: 5, maxTrainedFrames: 49 },
    defaults: {
      width: 192,
      height: 192,
      frames: 33,
      fps: 16,
      steps: 16,
      guidanceScale: 4,
      shift: 3,
      scheduler: 'unipc',
    },
    policy: policyPresets['vmoba-trained'],
    randomWeights: false,
    knows: { colours: ['red', 'green', 'blue'], shapes: ['ball', 'box'] },
    addedAt: now(),
  };
  const wan: Model = {
    ...nano,
    id: 'wan2.1-t2v-1.3b',
    name: 'Wan 2.1 T2V 1.3B',
    licence: 'Apache-2.0',
    origin: 'reference',
    folder: '/data/models/wan2.1-t2v-1.3b',
    bytes: 16_900_000_000,
    limits: { sideMultiple: 16, maxTrainedSide: 832, maxTrainedFrames: 81 },
    defaults: {
      width: 832,
      height: 480,
      frames: 81,
      fps: 16,
      steps: 50,
      guidanceScale: 6,
      shift: 8,
      scheduler: 'unipc',
    },
    policy: null,
    knows: {},
  };

  const project: Project = {
    id: id('prj'),
    name: 'First clips',
    takes: 0,
    openRenders: 0,
    coverMediaId: null,
    createdAt: now(),
    trashedAt: null,
  };
  const settingsOf = (index: number, changes: Partial<RenderSettings> = {}): RenderSettings => ({
    model: 'nano',
    prompt: prompts[index % prompts.length] ?? '',
    negativePrompt: '',
    width: 192,
    height: [192, 128, 256][index % 3] ?? 192,
    frames: 33,
    fps: 16,
    steps: 16,
    guidanceScale: 4,
    shift: 3,
    scheduler: 'unipc',
    seed: String(4182 + index),
    policy: { ...policyPresets['vmoba-trained'], denseSteps: 0.25 },
    ...changes,
  });

  const world = {
    id,
    now,
    publish,
    settings: studioSettings.parse(options.settings ?? {}),
    models: [nano, wan],
    downloads: [] as Download[],
    projects: [project],
    presets: [] as Preset[],
    renders: [] as Render[],
    takes: [] as Take[],
    exports: [] as ClipExport[],
    uploads: new Map<string, { name: string; pieces: Uint8Array[] }>(),
    /** What is found in files that are uploaded. */
    clipSettings: { settings: null, modelId: null } as MethodOutput<'takes.readSettings'>,
    steps: new Map<string, StepStatistics[]>(),
    watched: new Map<string, number>(),
    mode: 'running' as QueueStatus['mode'],
    freeDiskBytes: 120e9,
    timer: undefined as ReturnType<typeof setTimeout> | undefined,

    addRender(settings: RenderSettings, changes: Partial<Render> = {}): Render {
      const position = Math.max(0, ...world.renders.map((render) => render.position)) + 1;
      const render: Render = {
        id: id('rnd'),
        projectId: project.id,
        state: 'queued',
        progress: null,
        stepsDone: 0,
        kind: 'final',
        settings,
        output: { format: 'mp4' },
        position,
        sweepId: null,
        sourceTakeId: null,
        takeId: null,
        error: null,
        engineCrashes: 0,
        warnings: [],
        createdAt: now(),
        startedAt: null,
        endedAt: null,
        ...changes,
      };
      world.renders.push(render);
      world.steps.set(render.id, []);
      publish('renders.changed', render);
      return render;
    },

    change(render: Render, changes: Partial<Render>): Render {
      Object.assign(render, changes);
      publish('renders.changed', { ...render });
      publish('queue.changed', world.queue());
      return { ...render };
    },

    changeDownload(download: Download, changes: Partial<Download>): Download {
      Object.assign(download, changes);
      publish('models.download', { ...download });
      return { ...download };
    },

    addTake(render: Render): Take {
      const statistics = world.statistics(render);
      const takeId = id('tak');
      const { width, height, frames, fps, prompt } = render.settings;
      const take: Take = {
        id: takeId,
        renderId: render.id,
        projectId: render.projectId,
        name: prompt,
        favourite: false,
        kind: render.kind,
        settings: render.settings,
        modelName: world.models.find((model) => model.id === render.settings.model)?.name ?? '',
        clip: {
          mediaId: `${takeId}.clip`,
          format: 'mp4',
          width,
          height,
          frames,
          fps,
          bytes: Math.round(width * height * frames * 0.05),
        },
        posterMediaId: `${takeId}.poster`,
        latentHash: '0123456789abcdef',
        framesHash: '',
        bitIdentical: true,
        differenceReason: null,
        renderSeconds: statistics.seconds.total,
        peakBytes: planOf(render.settings).memory.peak,
        meanDensity: statistics.meanDensity,
        speedup: statistics.speedup,
        fileExists: true,
        createdAt: now(),
        trashedAt: null,
      };
      world.takes.unshift(take);
      project.takes++;
      publish('takes.changed', take);
      publish('projects.changed', { ...project });
      return take;
    },

    statistics(render: Render): RenderStatistics {
      const steps = world.steps.get(render.id) ?? [];
      const plan = planOf(render.settings);
      const dense = steps.filter((step) => step.layers.every((layer) => layer.dense));
      const sparse = steps.filter((step) => !dense.includes(step));
      const denseStepSeconds = median(dense.map((step) => step.seconds.total));
      const sparseStepSeconds = median(sparse.map((step) => step.seconds.total));
      const densities = sparse.flatMap((step) => step.layers.map((layer) => layer.density));
      const density = densities.length ? densities.reduce((sum, one) => sum + one, 0) / densities.length : null;
      const all = steps.flatMap((step) => step.layers.map((layer) => layer.density));
      const { linears, attentionDense } = plan.flops;
      const sampling = steps.reduce((sum, step) => sum + step.seconds.total, 0);
      let row = 0;
      return {
        renderId: render.id,
        plan,
        text: {
          tokens: render.settings.prompt.split(/\s+/).length + 1,
          truncated: false,
          words: render.settings.prompt.split(/\s+/).map((word) => ({ text: word, firstRow: row++, rows: 1 })),
          seconds: 0.05,
        },
        steps,
        meanDensity: all.length ? all.reduce((sum, one) => sum + one, 0) / all.length : null,
        speedup: {
          measured: denseStepSeconds && sparseStepSeconds ? denseStepSeconds / sparseStepSeconds : null,
          against: denseStepSeconds ? 'own-steps' : null,
          denseStepSeconds,
          sparseStepSeconds,
          arithmetic: density === null ? null : (linears + attentionDense) / (linears + attentionDense * density),
        },
        seconds: { loading: 0.2, text: 0.05, sampling, decoding: 0.8, encoding: 0.1, total: sampling + 1.15 },
        mappedSteps: steps.map(({ step }) => ({ step, layer: world.watched.get(render.id) ?? 0, head: -1 })),
      };
    },

    queue(): QueueStatus {
      const counted = (state: Render['state']) => world.renders.filter((render) => render.state === state).length;
      return {
        mode: world.mode,
        reason: null,
        runningId: world.renders.find((render) => render.state === 'running')?.id ?? null,
        queued: counted('queued'),
        paused: counted('paused'),
        failed: counted('failed'),
        done: counted('done'),
        etaSeconds: (counted('queued') + counted('running')) * 14,
      };
    },

    /** One step of the running render, or the start of the next; exports come to their end. */
    advance() {
      for (const one of world.exports) {
        if (one.state !== 'running') continue;
        Object.assign(one, { state: 'done', frames: one.ofFrames });
        publish('exports.changed', { ...one });
      }
      let render = world.renders.find((one) => one.state === 'running');
      if (!render) {
        if (world.mode !== 'running') return;
        render = world.renders.filter((one) => one.state === 'queued').sort((a, b) => a.position - b.position)[0];
        if (!render) return;
        world.change(render, {
          state: 'running',
          startedAt: now(),
          progress: {
            phase: 'sampling',
            fraction: 0,
            step: 0,
            steps: render.settings.steps,
            layer: 0,
            etaSeconds: null,
            pausing: false,
          },
        });
        publish('renders.text', { id: render.id, text: world.statistics(render).text as never });
        return;
      }
      const { settings } = render;
      const step = stepOf(settings, render.stepsDone);
      world.steps.get(render.id)?.push(step);
      const done = render.stepsDone + 1;
      publish('renders.step', { id: render.id, step });
      const watched = world.watched.get(render.id);
      if (watched !== undefined) {
        publish('renders.preview', { id: render.id, step: step.step, ...previewOf(settings, step.step) });
        publish('renders.maps', {
          id: render.id,
          ...mapsOf(settings, step.step, watched, settings.prompt.split(/\s+/).length),
        });
      }
      const progress = {
        phase: 'sampling' as const,
        fraction: done / settings.steps,
        step: done,
        steps: settings.steps,
        layer: 0,
        etaSeconds: (settings.steps - done) * step.seconds.total,
        pausing: false,
      };
      Object.assign(render, { stepsDone: done, progress });
      publish('renders.progress', { id: render.id, progress });
      if (done === settings.steps) {
        const take = world.addTake(render);
        world.change(render, { state: 'done', progress: null, takeId: take.id, endedAt: now() });
      }
    },
  };

  for (let index = 0; index < (options.takes ?? 0); index++) {
    const render = world.addRender(settingsOf(index), { state: 'done', stepsDone: 16 });
    world.steps.set(
      render.id,
      Array.from({ length: 16 }, (_, step) => stepOf(render.settings, step)),
    );
    render.takeId = world.addTake(render).id;
  }
  for (let index = 0; index < (options.waiting ?? 0); index++) world.addRender(settingsOf(index + 1));
  if (stepMs !== null) world.timer = setInterval(() => world.advance(), stepMs);
  return world;
}

export type World = ReturnType<typeof createWorld>;
