/** takes.*, projects.*, presets.*, prompts.*, uploads.* */
import { parseClipSettings } from '../../../contract/clipSettings.ts';
import type { HandlersOf } from '../../../contract/index.ts';
import type { Core } from '../core.ts';
import { deletePending } from '../reconcile.ts';
import type { CallContext } from './context.ts';

export function takeHandlers(core: Core): HandlersOf<'takes', CallContext> {
  const { library, events, uploads, encoder, models } = core;
  const tellProject = async (id: string) => events.publish('projects.changed', await library.projects.get(id));
  const tellAll = async (takes: Awaited<ReturnType<typeof library.takes.trash>>) => {
    for (const take of takes) events.publish('takes.changed', take);
    for (const id of new Set(takes.map((take) => take.projectId))) await tellProject(id);
  };
  return {
    'takes.list': (query) => library.takes.list(query),
    'takes.get': ({ id }) => library.takes.get(id),
    'takes.update': async ({ id, ...changes }) => {
      if (changes.projectId !== undefined) await library.projects.chosen(changes.projectId);
      const before = await library.takes.get(id);
      const take = await library.takes.update(id, changes);
      events.publish('takes.changed', take);
      if (before.projectId !== take.projectId) for (const one of [before, take]) await tellProject(one.projectId);
      return take;
    },
    'takes.trash': async ({ ids }) => {
      await tellAll(await library.takes.trash(ids));
      return {};
    },
    'takes.restore': async ({ ids }) => {
      await tellAll(await library.takes.restore(ids));
      return {};
    },
    'takes.delete': async ({ ids }) => {
      await library.takes.delete(ids);
      await deletePending(library);
      events.publish('takes.removed', { ids });
      return {};
    },
    'takes.emptyTrash': async () => {
      const { ids, bytes } = await library.takes.emptyTrash();
      await deletePending(library);
      if (ids.length > 0) events.publish('takes.removed', { ids });
      return { takes: ids.length, freedBytes: bytes };
    },
    'takes.readSettings': async ({ uploadId }) => {
      const { path, name } = await uploads.complete(uploadId);
      try {
        const settings = parseClipSettings(await encoder.readComment(path, name));
        return { settings, modelId: settings && (await models.byFingerprint(settings.model.fingerprint)) };
      } finally {
        await uploads.remove(uploadId);
      }
    },
  };
}

export function projectHandlers({ library, events, queue }: Core): HandlersOf<'projects', CallContext> {
  const told = async (id: string) => {
    const project = await library.projects.get(id);
    events.publish('projects.changed', project);
    return project;
  };
  return {
    'projects.list': async () => ({ items: await library.projects.list() }),
    'projects.create': async ({ name }) => told((await library.projects.create(name)).id),
    'projects.rename': async ({ id, name }) => told((await library.projects.rename(id, name)).id),
    'projects.trash': async ({ id }) => {
      const { pausedRenders } = await library.projects.trash(id);
      const running = queue.runningId;
      if (running !== null && (await library.renders.get(running)).projectId === id) await queue.pause(running);
      for (const paused of pausedRenders) {
        events.publish('renders.changed', queue.shown(await library.renders.get(paused)));
      }
      await told(id);
      return {};
    },
    'projects.restore': async ({ id }) => told((await library.projects.restore(id)).id),
  };
}

export function presetHandlers({ library, events }: Core): HandlersOf<'presets', CallContext> {
  const tell = async () => events.publish('presets.changed', { items: await library.presets.list() });
  return {
    'presets.list': async () => ({ items: await library.presets.list() }),
    'presets.save': async (preset) => {
      const saved = await library.presets.save(preset);
      await tell();
      return saved;
    },
    'presets.delete': async ({ id }) => {
      await library.presets.delete(id);
      await tell();
      return {};
    },
  };
}

export function promptHandlers({ library, gallery }: Core): HandlersOf<'prompts', CallContext> {
  return {
    'prompts.history': async ({ query, limit }) => ({ items: await library.presets.prompts(query, limit) }),
    'prompts.gallery': () => ({ items: gallery.items() }),
  };
}

export function uploadHandlers({ uploads }: Core): HandlersOf<'uploads', CallContext> {
  return {
    'uploads.begin': async ({ name, bytes }) => ({ uploadId: await uploads.begin(name, bytes) }),
    'uploads.append': async ({ uploadId, data }) => ({ received: await uploads.append(uploadId, data) }),
    'uploads.abandon': async ({ uploadId }) => {
      await uploads.remove(uploadId);
      return {};
    },
  };
}
