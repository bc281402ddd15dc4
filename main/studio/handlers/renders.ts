/** renders.* and queue.* */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { StudioError } from '../../../contract/errors.ts';
import type { HandlersOf, ParsedInput } from '../../../contract/index.ts';
import { parseRequest } from '../../../contract/parse.ts';
import type { Render } from '../../../contract/renders.ts';
import { type RenderSettings, renderSettings } from '../../../contract/renderSettings.ts';
import type { RenderStatistics } from '../../../contract/statistics.ts';
import type { Core } from '../core.ts';
import { failpoint } from '../failpoints.ts';
import { newId } from '../library/ids.ts';
import type { NewRender, StoredRender } from '../library/tables/renders.ts';
import { WorkFolder } from '../queue/workFolder.ts';
import { unpackStatistics } from '../statistics/blob.ts';
import { listMaps, readMaps } from '../statistics/mapsFile.ts';
import { meanDensity, speedupOf } from '../statistics/speedup.ts';
import type { CallContext } from './context.ts';

export function queueHandlers({ queue }: Core): HandlersOf<'queue', CallContext> {
  return {
    'queue.status': () => queue.status(),
    'queue.pause': async () => {
      await queue.pauseAll();
      return queue.status();
    },
    'queue.finishCurrent': async () => {
      await queue.finishCurrent();
      return queue.status();
    },
    'queue.resume': async () => {
      await queue.resumeAll();
      return queue.status();
    },
  };
}

export function renderHandlers(core: Core): HandlersOf<'renders', CallContext> {
  const { library, queue, events, watchers } = core;
  const tell = (renders: StoredRender[]): Render[] =>
    renders.map((stored) => {
      const render = queue.shown(stored);
      events.publish('renders.changed', render);
      return render;
    });

  type Creation = Pick<ParsedInput<'renders.create'>, 'place' | 'kind' | 'output' | 'projectId'>;

  /** All renders of a call differ only in their seeds, so the first stands for all where they are checked. */
  async function create(
    all: RenderSettings[],
    { projectId, kind, output, place }: Creation,
    extra: Pick<NewRender, 'sweepId' | 'sourceTakeId'> = {},
  ): Promise<Render[]> {
    const warnings = all[0] ? await core.requests.check(all[0]) : [];
    const project = await library.projects.chosen(projectId);
    const created = await library.renders.insert(
      all.map((settings) => ({ projectId: project.id, kind, settings, output, warnings, ...extra })),
      place,
    );
    failpoint('render-inserted');
    const renders = tell(created);
    queue.wake();
    queue.tell();
    return renders;
  }

  const one = async (renders: Promise<Render[]>): Promise<Render> => (await renders)[0] as Render;

  return {
    'renders.create': ({ settings, ...creation }) => one(create([settings], creation)),
    'renders.createSweep': async ({ settings, seeds, ...creation }) => {
      const list = Array.isArray(seeds) ? seeds : Array.from({ length: seeds.count }, randomSeed);
      const sweepId = newId('swp');
      const renders = await create(
        list.map((seed) => ({ ...settings, seed })),
        creation,
        { sweepId },
      );
      return { sweepId, renders };
    },
    'renders.createFromTake': async ({ takeId, changes, place, kind, output }) => {
      const take = await library.takes.get(takeId);
      const settings = merged(take.settings, changes);
      const kept = output ?? { format: take.clip.format === 'png' ? ('mp4' as const) : take.clip.format };
      const creation = { place, kind, output: kept, projectId: take.trashedAt === null ? take.projectId : undefined };
      return one(create([settings], creation, { sourceTakeId: takeId }));
    },
    'renders.get': async ({ id }) => queue.shown(await library.renders.get(id)),
    'renders.list': async (query) => {
      const page = await library.renders.list(query);
      return { ...page, items: page.items.map((render) => queue.shown(render)) };
    },
    'renders.edit': async ({ id, changes, output }) => {
      const current = await library.renders.get(id);
      const settings = merged(current.settings, changes);
      const warnings = await core.requests.check(settings);
      const restarts = picture(settings) !== picture(current.settings);
      const edited = await library.renders.edit(id, settings, output ?? current.output, warnings, restarts);
      // The queue may take it from here on: nothing is awaited before the old work is out of its way.
      if (restarts) await new WorkFolder(library.paths.work, id).discard();
      return tell([edited])[0] as Render;
    },
    'renders.duplicate': async ({ id, changes, place }) => {
      const { settings, kind, output, projectId, sourceTakeId } = await library.renders.get(id);
      const extra = sourceTakeId === null ? {} : { sourceTakeId };
      return one(create([merged(settings, changes ?? {})], { place, kind, output, projectId }, extra));
    },
    'renders.retry': async ({ id }) => queue.shown(await queue.retry(id)),
    'renders.pause': async ({ id }) => queue.shown(await queue.pause(id)),
    'renders.resume': async ({ id }) => queue.shown(await queue.resume(id)),
    'renders.cancel': async ({ id }) => queue.shown(await queue.cancel(id)),
    'renders.move': async ({ ids, to }) => {
      tell(await library.renders.move(ids, to));
      queue.wake();
      return {};
    },
    'renders.remove': async ({ ids }) => {
      const running = queue.runningId;
      if (running !== null && ids.includes(running)) await queue.cancel(running);
      events.publish('renders.removed', { ids: await library.renders.remove(ids) });
      queue.tell();
      return {};
    },
    'renders.restore': async ({ ids }) => {
      tell(await library.renders.restore(ids));
      queue.tell();
      return {};
    },
    'renders.statistics': ({ id }) => statisticsOf(core, id),
    'renders.maps': async ({ id, step, layer }) => {
      const maps = readMaps(await mapsPath(core, id), step, layer);
      if (!maps) throw new StudioError('not-found', 'No maps are kept for this step.', { field: 'step' });
      return maps;
    },
    'renders.watch': async ({ id, preview, maps }, { connection }) => {
      await library.renders.get(id);
      watchers.watch(connection, id, { preview, maps });
      return {};
    },
    'renders.unwatch': ({ id }, { connection }) => {
      watchers.unwatch(connection, id);
      return {};
    },
  };
}

export const randomSeed = (): string => BigInt(`0x${randomBytes(8).toString('hex')}`).toString();

function merged(settings: RenderSettings, changes: Partial<RenderSettings>): RenderSettings {
  const given = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined));
  return parseRequest(renderSettings, { ...settings, ...given });
}

/** What decides the picture; the rest may change without beginning anew. */
function picture({ fps: _fps, memoryLimitBytes: _limit, runAnyway: _run, ...settings }: RenderSettings): string {
  return JSON.stringify(Object.entries(settings).sort(([a], [b]) => (a < b ? -1 : 1)));
}

async function statisticsOf(core: Core, id: string): Promise<RenderStatistics> {
  const { library, queue, estimator, requests } = core;
  const render = await library.renders.get(id);
  const blob = await library.renders.statistics(id);
  if (blob) {
    const { firstSteps: _first, ...stored } = unpackStatistics(blob);
    const speedup = render.takeId === null ? noSpeedup : (await library.takes.get(render.takeId)).speedup;
    return { renderId: id, ...stored, meanDensity: meanDensity(stored.steps), speedup };
  }
  const journal = queue.journalOf(id);
  const sampling = journal.steps.reduce((sum, step) => sum + step.seconds.total, 0);
  const text = journal.text?.seconds ?? 0;
  const calibrated = await requests
    .resolve(render.settings)
    .then(({ request, card }) => estimator.denseStepSeconds(request, card))
    .catch(() => null); // a render whose model has gone has its own steps still
  const mapsFile = await mapsPath(core, id);
  return {
    renderId: id,
    plan: journal.plan,
    text: journal.text,
    steps: journal.steps,
    meanDensity: meanDensity(journal.steps),
    speedup: speedupOf(journal.plan, journal.steps, new Set(journal.firstSteps), calibrated),
    seconds: { loading: 0, text, sampling, decoding: 0, encoding: 0, total: sampling + text },
    mappedSteps: existsSync(mapsFile)
      ? listMaps(mapsFile).map(({ header: { step, layer, head } }) => ({ step, layer, head }))
      : [],
  };
}

const noSpeedup = { measured: null, against: null, denseStepSeconds: null, sparseStepSeconds: null, arithmetic: null };

/** The maps of a take, or of a render under way; the file need not be there. Errors: not-found. */
async function mapsPath({ library }: Core, id: string): Promise<string> {
  const { takeId } = await library.renders.get(id);
  const kept = takeId === null ? null : (await library.takes.files(takeId)).maps;
  if (kept !== null) return join(library.paths.folder, kept);
  return new WorkFolder(library.paths.work, id).maps;
}
