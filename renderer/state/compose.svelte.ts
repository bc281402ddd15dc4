/** What the next render is asked to be, and what it would cost: settings as they are typed, problems at their fields. */
import { policyPresets } from '../../contract/attentionPolicy.ts';
import type { StudioClient } from '../../contract/client.ts';
import type { ErrorShape } from '../../contract/errors.ts';
import type { Estimate } from '../../contract/estimates.ts';
import type { Model } from '../../contract/models.ts';
import type { PolicyForecast } from '../../contract/plan.ts';
import { type RenderSettings, settingsChanges } from '../../contract/renderSettings.ts';
import type { ModelsState } from './models.svelte.ts';
import type { ProjectsState } from './projects.svelte.ts';
import type { SettingsState } from './settings.svelte.ts';
import { snapFrames, snapSide } from './sizes.ts';

export type SeedMode = 'random' | 'locked' | 'sweep';

const askPauseMs = 140;
const keepPauseMs = 800;
const draftSteps = 0.4;

const fallback: Omit<RenderSettings, 'model' | 'prompt'> = {
  negativePrompt: '',
  width: 480,
  height: 272,
  frames: 33,
  fps: 16,
  steps: 20,
  guidanceScale: 5,
  shift: 5,
  scheduler: 'unipc',
  seed: '1',
  policy: policyPresets['vmoba-training-free'],
};

/** What Compose has no field for: left open it is what Settings says, or what the engine finds best. */
export const leftToSettings = ['device', 'threads', 'memoryLimitBytes', 'precision'] as const;

export const randomSeed = (): string => String(crypto.getRandomValues(new Uint32Array(1))[0]);

/** What a model is best run with. */
export function modelDefaults(model: Model): RenderSettings {
  const { defaults, policy } = model;
  return {
    ...fallback,
    ...defaults,
    policy: policy ?? policyPresets['vmoba-training-free'],
    model: model.id,
    prompt: '',
    seed: randomSeed(),
  };
}

export function createCompose(
  client: StudioClient,
  {
    models,
    settings: studioSettings,
    projects,
  }: { models: ModelsState; settings: SettingsState; projects: ProjectsState },
) {
  let settings = $state<RenderSettings>({ ...fallback, model: 'nano', prompt: '', seed: randomSeed() });
  let seedMode = $state<SeedMode>('random');
  let sweepCount = $state(4);
  let problems = $state.raw<ErrorShape[]>([]);
  let estimate = $state.raw<Estimate | null>(null);
  let unanswered = $state.raw<ErrorShape | null>(null);
  let dial = $state.raw<{ items: PolicyForecast[]; current: number | null }>({ items: [], current: null });
  let sourceTakeId = $state<string | null>(null);
  let touchedPrompt = $state(false);
  let asks = 0;
  let askTimer: ReturnType<typeof setTimeout> | undefined;
  let keepTimer: ReturnType<typeof setTimeout> | undefined;

  const model = $derived(models.find(settings.model));

  /** The settings without reactive wrapping; an empty prompt does not keep one from asking what a clip costs. */
  const plain = () => $state.snapshot(settings) as RenderSettings;
  const asked = () => ({ ...plain(), prompt: settings.prompt.trim() === '' ? 'a' : settings.prompt });

  async function ask() {
    const mine = ++asks;
    try {
      const answer = await client.call('estimates.get', { settings: asked() });
      if (mine !== asks) return;
      problems = answer.problems;
      if (answer.estimate) estimate = answer.estimate;
      unanswered = null;
      if (answer.problems.length > 0) return;
      const offered = await client.call('policies.dial', { settings: asked() });
      if (mine === asks) dial = offered;
    } catch (error) {
      if (mine === asks) unanswered = error as ErrorShape;
    }
  }

  function askAgain() {
    clearTimeout(askTimer);
    askTimer = setTimeout(() => void ask(), askPauseMs);
  }

  function askSoon() {
    askAgain();
    clearTimeout(keepTimer);
    keepTimer = setTimeout(keep, keepPauseMs);
  }

  const keep = () =>
    void studioSettings
      .update({ client: { compose: JSON.parse(JSON.stringify({ settings: plain(), seedMode, sweepCount })) as never } })
      .catch(() => {}); // what was typed is kept on a best-effort basis

  const clean = (): RenderSettings => {
    const { runAnyway: _, ...rest } = plain();
    return { ...rest, ...(estimate && !estimate.fitsMemory ? { runAnyway: true } : {}) };
  };

  /** A finished render teaches what the next one costs. */
  const end = client.on('renders.changed', ({ state }) => {
    if (state === 'done') askAgain();
  });

  const compose = {
    get settings() {
      return settings;
    },
    get model() {
      return model;
    },
    get seedMode() {
      return seedMode;
    },
    set seedMode(mode) {
      seedMode = mode;
      askSoon();
    },
    get sweepCount() {
      return sweepCount;
    },
    set sweepCount(count) {
      sweepCount = count;
    },
    get estimate() {
      return estimate;
    },
    /** Why there is no answer about the cost. */
    get unanswered() {
      return unanswered;
    },
    get dial() {
      return dial;
    },
    get promptMissing() {
      return touchedPrompt && settings.prompt.trim() === '';
    },
    get canRender() {
      return problems.length === 0 && settings.prompt.trim() !== '' && model !== undefined;
    },
    problem(field: string): string | null {
      return problems.find((one) => one.field === field || one.field?.startsWith(`${field}.`))?.message ?? null;
    },
    /** What keeps it from being rendered, wherever its field is: the field itself may be folded away. */
    get firstProblem(): ErrorShape | null {
      return problems[0] ?? null;
    },
    /** Changes some settings; policies and prompts alike. */
    change(changes: Partial<RenderSettings>) {
      Object.assign(settings, changes);
      if ('prompt' in changes) touchedPrompt = true;
      askSoon();
    },
    chooseModel(id: string) {
      const chosen = models.find(id);
      if (!chosen) return;
      const { prompt, seed } = settings;
      settings = { ...modelDefaults(chosen), prompt, seed };
      askSoon();
    },
    /** Takes over settings from elsewhere: a take, a dropped clip, a preset, the gallery. */
    use(changes: Partial<RenderSettings>, options: { lockSeed?: boolean; sourceTakeId?: string | null } = {}) {
      settings = { ...plain(), ...changes };
      if (options.lockSeed) seedMode = 'locked';
      sourceTakeId = options.sourceTakeId ?? null;
      touchedPrompt = false;
      askSoon();
    },
    snapSize() {
      const multiple = model?.limits.sideMultiple ?? 16;
      compose.change({ width: snapSide(settings.width, multiple), height: snapSide(settings.height, multiple) });
    },
    snapLength() {
      compose.change({ frames: snapFrames(settings.frames) });
    },
    /** Puts it into the queue. Errors: those of `renders.create`, told by the caller. */
    async render(place: 'last' | 'next' = 'last', kind: 'final' | 'draft' = 'final') {
      touchedPrompt = true;
      await ask();
      if (!compose.canRender) return null;
      const project = projects.current ? { projectId: projects.current.id } : {};
      const output = {
        format: studioSettings.value.format,
        ...(studioSettings.value.rateFactor === null ? {} : { rateFactor: studioSettings.value.rateFactor }),
      };
      const creation = { settings: kind === 'draft' ? draft(clean()) : clean(), place, kind, output, ...project };
      if (seedMode === 'sweep') {
        const { renders } = await client.call('renders.createSweep', { ...creation, seeds: { count: sweepCount } });
        return renders[0] ?? null;
      }
      const render = await client.call('renders.create', creation);
      if (seedMode === 'random') settings.seed = randomSeed();
      keep();
      return render;
    },
    load() {
      const first = models.items[0];
      const kept = studioSettings.value.client['compose'] as
        { settings?: unknown; seedMode?: SeedMode; sweepCount?: number } | undefined;
      const parsed = settingsChanges.omit({ prompt: true }).loose().safeParse(kept?.settings);
      const base = models.find('nano') ?? first;
      if (base) settings = modelDefaults(base);
      if (parsed.success && models.find(String(parsed.data.model)))
        settings = { ...plain(), ...(parsed.data as RenderSettings) };
      if (kept?.seedMode && ['random', 'locked', 'sweep'].includes(kept.seedMode)) seedMode = kept.seedMode;
      if (typeof kept?.sweepCount === 'number') sweepCount = kept.sweepCount;
      askSoon();
    },
    askSoon,
    get sourceTakeId() {
      return sourceTakeId;
    },
    dispose() {
      end();
      clearTimeout(askTimer);
      clearTimeout(keepTimer);
    },
  };
  return compose;
}

/** A quick look: fewer steps and no guidance change, the same picture roughly. */
function draft(settings: RenderSettings): RenderSettings {
  return { ...settings, steps: Math.max(4, Math.round(settings.steps * draftSteps)) };
}

export type ComposeState = ReturnType<typeof createCompose>;
