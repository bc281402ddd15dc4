/** The contract, answered from the invented world. */
import type { Handlers } from '../../../contract/index.ts';
import { StudioError } from '../../../contract/errors.ts';
import { renderSettings } from '../../../contract/renderSettings.ts';
import type { Render } from '../../../contract/renders.ts';
import { contractVersion } from '../../../contract/studio.ts';
import type { Take } from '../../../contract/takes.ts';
import { policyPresets } from '../../../contract/attentionPolicy.ts';
import { dialOf, estimateOf, forecast } from './planning.ts';
import { mapsOf } from './rendering.ts';
import { prompts, type World } from './world.ts';

function page<Item>(items: Item[], { cursor, limit }: { cursor: string | null; limit: number }) {
  const from = Number(cursor ?? 0);
  const next = from + limit;
  return { items: items.slice(from, next), nextCursor: next < items.length ? String(next) : null, total: items.length };
}

export function fakeHandlers(world: World): Handlers<object> {
  const missing = (what: string) => new StudioError('not-found', `There is no such ${what}.`);
  const render = (id: string): Render => {
    const found = world.renders.find((one) => one.id === id);
    if (!found) throw missing('render');
    return found;
  };
  const take = (id: string): Take => {
    const found = world.takes.find((one) => one.id === id);
    if (!found) throw missing('take');
    return found;
  };
  const queue = () => {
    const status = world.queue();
    world.publish('queue.changed', status);
    return status;
  };
  const told = (changed: Take) => {
    world.publish('takes.changed', { ...changed });
    return changed;
  };
  const removed = new Map<string, Render>();
  const modelsChanged = () => world.publish('models.changed', { items: world.models });
  const front = () => Math.min(...world.renders.map(({ position }) => position)) - 1;
  const desktopOnly = () => new StudioError('unsupported', 'This host cannot do that: it works in the desktop app.');
  const status = () => ({
    contractVersion: contractVersion as typeof contractVersion,
    version: '0.1.0',
    host: { kind: 'in-process' as const, canReveal: false, canChoosePaths: false },
    library: { state: 'ok' as const, problem: null, folder: '/home/someone/VMoBA Studio', freeBytes: 118e9 },
    notices: [],
  });
  const engine = () => ({
    state: world.queue().runningId ? ('rendering' as const) : ('idle' as const),
    reason: null,
    version: '0.1.0',
    build: 'fake',
    threads: 8,
    devices: [
      {
        id: 'cpu',
        name: 'CPU, 8 cores',
        kind: 'cpu' as const,
        usable: true,
        reason: null,
        memoryBytes: 32e9,
        instructionSet: 'AVX2',
        precisions: ['f32' as const],
      },
      {
        id: 'cuda:0',
        name: 'CUDA',
        kind: 'cuda' as const,
        usable: false,
        reason: 'No NVIDIA driver was found: install one to use the GPU.',
        memoryBytes: 0,
        instructionSet: null,
        precisions: [],
      },
    ],
    crashes: 0,
  });

  return {
    'studio.status': status,
    'library.backups': () => ({ items: [] }),
    'library.backup': () => ({ name: 'library-1.sqlite', createdAt: world.now(), bytes: 81_920 }),
    'library.check': () => ({ problems: [] }),
    'library.restore': status,
    'host.reveal': () => {
      throw desktopOnly();
    },
    'host.choosePath': () => {
      throw desktopOnly();
    },

    'renders.create': ({ settings, place, kind, output }) =>
      world.addRender(settings, { kind, output, ...(place === 'next' ? { position: front() } : {}) }),
    'renders.createSweep': ({ settings, seeds, kind, output }) => {
      const sweepId = world.id('swp');
      const list = Array.isArray(seeds)
        ? seeds
        : Array.from({ length: seeds.count }, (_, index) => String(1000 + index));
      return {
        sweepId,
        renders: list.map((seed) => world.addRender({ ...settings, seed }, { sweepId, kind, output })),
      };
    },
    'renders.createFromTake': ({ takeId, changes, kind, place }) =>
      world.addRender(
        { ...take(takeId).settings, ...changes },
        { kind, sourceTakeId: takeId, ...(place === 'next' ? { position: front() } : {}) },
      ),
    'renders.get': ({ id }) => render(id),
    'renders.list': ({ states, order, cursor, limit }) => {
      const found = world.renders.filter(({ state }) => !states || states.includes(state));
      return page(order === 'queue' ? found.sort((a, b) => a.position - b.position) : found.reverse(), {
        cursor,
        limit,
      });
    },
    'renders.edit': ({ id, changes }) =>
      world.change(render(id), { settings: { ...render(id).settings, ...changes }, stepsDone: 0 }),
    'renders.duplicate': ({ id, changes }) => world.addRender({ ...render(id).settings, ...changes }),
    'renders.retry': ({ id }) => world.change(render(id), { state: 'queued', error: null }),
    'renders.pause': ({ id }) => world.change(render(id), { state: 'paused', progress: null }),
    'renders.resume': ({ id }) => world.change(render(id), { state: 'queued' }),
    'renders.cancel': ({ id }) =>
      world.change(render(id), { state: 'cancelled', progress: null, endedAt: world.now() }),
    'renders.move': ({ ids, to }) => {
      const waiting = world.renders
        .filter(({ state }) => state === 'queued' || state === 'paused')
        .sort((a, b) => a.position - b.position);
      const moved = ids.map(render);
      const others = waiting.filter((one) => !ids.includes(one.id));
      const at = to === 'first' ? 0 : to === 'last' ? others.length : others.findIndex(({ id }) => id === to.before);
      others.splice(at, 0, ...moved);
      others.forEach((one, index) => one.position === index + 1 || world.change(one, { position: index + 1 }));
      return {};
    },
    'renders.remove': ({ ids }) => {
      for (const id of ids) removed.set(id, render(id));
      world.renders = world.renders.filter(({ id }) => !ids.includes(id));
      world.publish('renders.removed', { ids });
      queue();
      return {};
    },
    'renders.restore': ({ ids }) => {
      for (const id of ids) {
        const found = removed.get(id);
        if (!found) continue;
        world.renders.push(found);
        world.change(found, { state: found.state === 'running' || found.state === 'queued' ? 'paused' : found.state });
      }
      return {};
    },
    'renders.statistics': ({ id }) => world.statistics(render(id)),
    'renders.maps': ({ id, step, layer = 0 }) => {
      const { settings } = render(id);
      return mapsOf(settings, step, layer, settings.prompt.split(/\s+/).length);
    },
    'renders.watch': ({ id, maps }) => {
      world.watched.set(id, maps?.layer ?? 0);
      return {};
    },
    'renders.unwatch': ({ id }) => {
      world.watched.delete(id);
      return {};
    },

    'queue.status': () => world.queue(),
    'queue.pause': () => {
      world.mode = 'paused';
      const running = world.renders.find(({ state }) => state === 'running');
      if (running) world.change(running, { state: 'queued', progress: null });
      return queue();
    },
    'queue.finishCurrent': () => {
      world.mode = 'finishing';
      return queue();
    },
    'queue.resume': () => {
      world.mode = 'running';
      return queue();
    },

    'takes.list': ({ query = '', projectId, modelId, favourite, kind, trashed, order, cursor, limit }) => {
      const words = query.toLowerCase().split(/\s+/).filter(Boolean);
      const found = world.takes.filter(
        (one) =>
          (one.trashedAt !== null) === trashed &&
          (!projectId || one.projectId === projectId) &&
          (!modelId || one.settings.model === modelId) &&
          (!favourite || one.favourite) &&
          (!kind || one.kind === kind) &&
          words.every((word) => `${one.name} ${one.settings.prompt}`.toLowerCase().includes(word)),
      );
      if (order === 'oldest') found.reverse();
      if (order === 'name') found.sort((a, b) => a.name.localeCompare(b.name));
      return page(found, { cursor, limit });
    },
    'takes.get': ({ id }) => take(id),
    'takes.update': ({ id, ...changes }) => told(Object.assign(take(id), changes)),
    'takes.trash': ({ ids }) => {
      ids.forEach((id) => told(Object.assign(take(id), { trashedAt: world.now() })));
      return {};
    },
    'takes.restore': ({ ids }) => {
      ids.forEach((id) => told(Object.assign(take(id), { trashedAt: null })));
      return {};
    },
    'takes.delete': ({ ids }) => {
      world.takes = world.takes.filter(({ id }) => !ids.includes(id));
      world.publish('takes.removed', { ids });
      return {};
    },
    'takes.emptyTrash': () => {
      const gone = world.takes.filter(({ trashedAt }) => trashedAt !== null);
      world.takes = world.takes.filter(({ trashedAt }) => trashedAt === null);
      world.publish('takes.removed', { ids: gone.map(({ id }) => id) });
      return { takes: gone.length, freedBytes: gone.reduce((sum, { clip }) => sum + clip.bytes, 0) };
    },
    'takes.readSettings': ({ uploadId }) => {
      if (!world.uploads.delete(uploadId)) throw missing('upload');
      return world.clipSettings;
    },

    'uploads.begin': ({ name }) => {
      const uploadId = world.id('upl');
      world.uploads.set(uploadId, { name, pieces: [] });
      return { uploadId };
    },
    'uploads.append': ({ uploadId, data }) => {
      const pieces = world.uploads.get(uploadId)?.pieces;
      if (!pieces) throw missing('upload');
      pieces.push(data);
      return { received: pieces.reduce((sum, piece) => sum + piece.length, 0) };
    },
    'uploads.abandon': ({ uploadId }) => {
      world.uploads.delete(uploadId);
      return {};
    },

    'projects.list': () => ({ items: world.projects.filter(({ trashedAt }) => trashedAt === null) }),
    'projects.create': ({ name }) => {
      const project = {
        id: world.id('prj'),
        name,
        takes: 0,
        openRenders: 0,
        coverMediaId: null,
        createdAt: world.now(),
        trashedAt: null,
      };
      world.projects.push(project);
      world.publish('projects.changed', project);
      return project;
    },
    'projects.rename': ({ id, name }) => {
      const project = world.projects.find((one) => one.id === id);
      if (!project) throw missing('project');
      return Object.assign(project, { name });
    },
    'projects.trash': () => ({}),
    'projects.restore': ({ id }) => {
      const project = world.projects.find((one) => one.id === id);
      if (!project) throw missing('project');
      return project;
    },

    'presets.list': () => ({ items: world.presets }),
    'presets.save': ({ name, kind, value }) => {
      const preset = { id: world.id('pre'), name, kind, value, createdAt: world.now() };
      world.presets = [...world.presets.filter((one) => one.name !== name || one.kind !== kind), preset];
      world.publish('presets.changed', { items: world.presets });
      return preset;
    },
    'presets.delete': ({ id }) => {
      world.presets = world.presets.filter((one) => one.id !== id);
      world.publish('presets.changed', { items: world.presets });
      return {};
    },
    'policies.list': ({ settings }) => ({
      items: Object.values(policyPresets).map((policy) => forecast(settings, policy, policy.name)),
    }),
    'policies.dial': ({ settings }) => {
      const items = dialOf(settings);
      const index = items.findIndex(({ policy }) => JSON.stringify(policy) === JSON.stringify(settings.policy));
      return { items, current: index < 0 ? null : index };
    },
    'policies.forecast': ({ settings, policy }) => forecast(settings, policy, policy.name),

    'prompts.history': ({ query = '', limit }) => ({
      items: [...new Set(world.renders.map(({ settings }) => settings.prompt))]
        .filter((prompt) => prompt.toLowerCase().includes(query.toLowerCase()))
        .slice(0, limit)
        .map((prompt) => ({
          prompt,
          negativePrompt: '',
          uses: world.renders.filter(({ settings }) => settings.prompt === prompt).length,
          lastUsedAt: world.now(),
        })),
    }),
    'prompts.gallery': () => ({
      items: prompts.map((prompt) => ({ prompt, settings: {}, clipMediaId: null, posterMediaId: null })),
    }),

    'estimates.get': ({ settings }) => {
      const parsed = renderSettings.safeParse(settings);
      if (parsed.success) {
        const limits = world.models.find(({ id }) => id === parsed.data.model)?.limits;
        const multiple = limits?.sideMultiple ?? 16;
        const problems = (['width', 'height'] as const).flatMap((field) =>
          parsed.data[field] % multiple === 0
            ? []
            : [{ code: 'bad-request' as const, message: `must be a multiple of ${multiple}`, field }],
        );
        return {
          problems,
          estimate: problems.length > 0 ? null : estimateOf(parsed.data, world.takes.length, world.freeDiskBytes),
        };
      }
      const problems = parsed.error.issues.map((issue) => ({
        code: 'bad-request' as const,
        message: issue.message,
        field: issue.path.join('.'),
      }));
      return { problems, estimate: null };
    },
    'estimates.calibrate': () => ({ stepSeconds: 0.4 }),

    'models.list': () => ({ items: world.models }),
    'models.import': ({ path, name }) => {
      const [first] = world.models;
      if (!first) throw missing('model');
      const model = {
        ...first,
        id: `imported-${world.models.length}`,
        name: name ?? path.split('/').at(-1) ?? path,
        folder: path,
        origin: 'reference' as const,
      };
      world.models = [...world.models, model];
      modelsChanged();
      return model;
    },
    'models.inspect': ({ path }) => {
      if (!path.startsWith('/'))
        throw new StudioError('bad-model-file', `${path}: there is no such file.`, { field: 'path' });
      return {
        kind: 'wan-dit',
        naming: 'official',
        tensors: 825,
        bytes: 2.8e9,
        dtypes: { BF16: 825 },
        config: { dim: 1536, layers: 30 },
        warnings: [],
      };
    },
    'models.verify': () => ({ ok: true, files: [] }),
    'models.remove': ({ id }) => {
      world.models = world.models.filter((model) => model.id !== id);
      modelsChanged();
      return {};
    },
    'models.catalogue': () => ({
      items: [
        {
          id: 'wan2.1-t2v-14b',
          name: 'Wan 2.1 T2V 14B',
          description: 'The large text-to-video model, for 480p and 720p.',
          licence: 'Apache-2.0',
          licenceUrl: 'https://www.apache.org/licenses/LICENSE-2.0',
          homepage: 'https://github.com/Wan-Video/Wan2.1',
          files: [],
          approximateBytes: 40e9,
          installed: false,
          builtIn: false,
        },
      ],
    }),
    'models.download': ({ catalogueId }) => {
      const known = world.downloads.find((one) => one.catalogueId === catalogueId);
      const running = { state: 'running' as const, bytesPerSecond: 42e6, missingBytes: null, error: null };
      if (known) return world.changeDownload(known, running);
      const download = {
        id: world.id('dwn'),
        catalogueId,
        name: catalogueId,
        receivedBytes: 3.2e9,
        totalBytes: 40e9,
        file: 'dit.safetensors',
        ...running,
      };
      world.downloads.push(download);
      return download;
    },
    'models.downloads': () => ({ items: world.downloads }),
    'models.pauseDownload': ({ id }) => {
      const download = world.downloads.find((one) => one.id === id);
      if (!download) throw missing('download');
      return world.changeDownload(download, { state: 'paused', bytesPerSecond: null, missingBytes: null, error: null });
    },
    'models.cancelDownload': ({ id }) => {
      world.downloads = world.downloads.filter((one) => one.id !== id);
      return {};
    },

    'engine.status': engine,
    'engine.restart': engine,

    'exports.formats': () => ({
      items: [
        {
          format: 'mp4',
          name: 'MP4',
          description: 'H.264, plays everywhere',
          ending: '.mp4',
          rateFactor: { default: 18, best: 0, worst: 51 },
        },
        { format: 'gif', name: 'GIF', description: 'Loops in any page', ending: '.gif', rateFactor: null },
      ],
    }),
    'exports.start': ({ takeId, format }) => {
      const { clip } = take(takeId);
      const started = {
        id: world.id('exp'),
        takeId,
        format,
        state: 'running' as const,
        frames: 0,
        ofFrames: clip.frames,
        path: `/home/someone/VMoBA Studio/exports/clip.${format}`,
        mediaId: null,
        bytes: clip.bytes,
        error: null,
        createdAt: world.now(),
      };
      world.exports.unshift(started);
      world.publish('exports.changed', started);
      return started;
    },
    'exports.list': () => ({ items: world.exports }),
    'exports.cancel': () => ({}),

    'settings.get': () => world.settings,
    'settings.update': ({ shortcuts, client, ...patch }) => {
      const merged = { ...world.settings.client, ...client };
      world.settings = {
        ...world.settings,
        ...(Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== undefined)) as object),
        shortcuts: { ...world.settings.shortcuts, ...shortcuts },
        client: Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null)),
      };
      world.publish('settings.changed', world.settings);
      return world.settings;
    },
  };
}
