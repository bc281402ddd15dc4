/** models.*, engine.*, exports.*, settings.* */
import type { HandlersOf } from '../../../contract/index.ts';
import type { StudioSettings } from '../../../contract/settings.ts';
import type { Core } from '../core.ts';
import { exportFormats } from '../export/exports.ts';
import type { CallContext } from './context.ts';

export function modelHandlers({ models, downloads, engines }: Core): HandlersOf<'models', CallContext> {
  return {
    'models.list': async () => ({ items: await models.list() }),
    'models.import': ({ path, how, name }) => models.import(path, how, name),
    'models.inspect': ({ path }) => engines.ask((engine) => engine.inspect(path)),
    'models.verify': ({ id }) => models.verify(id),
    'models.remove': async ({ id }) => {
      await models.remove(id);
      return {};
    },
    'models.catalogue': async () => ({ items: await downloads.catalogue() }),
    'models.download': ({ catalogueId }) => downloads.start(catalogueId),
    'models.downloads': () => ({ items: downloads.list() }),
    'models.pauseDownload': ({ id }) => downloads.pause(id),
    'models.cancelDownload': async ({ id }) => {
      await downloads.cancel(id);
      return {};
    },
  };
}

export function engineHandlers({ engines }: Core): HandlersOf<'engine', CallContext> {
  return {
    'engine.status': () => engines.status(),
    'engine.restart': async () => {
      await engines.restart();
      return engines.status();
    },
  };
}

export function exportHandlers({ exports }: Core): HandlersOf<'exports', CallContext> {
  return {
    'exports.formats': () => ({ items: exportFormats }),
    'exports.start': (input) => exports.start(input),
    'exports.list': () => ({ items: exports.list() }),
    'exports.cancel': async ({ id }) => {
      await exports.cancel(id);
      return {};
    },
  };
}

export function settingsHandlers({ library, events, plans, queue }: Core): HandlersOf<'settings', CallContext> {
  return {
    'settings.get': () => library.settings.get(),
    'settings.update': async (changes) => {
      const settings = await library.settings.update(changes as Partial<StudioSettings>);
      // Device, threads and memory limit are part of what plans were asked for.
      plans.forget();
      events.publish('settings.changed', settings);
      queue.wake();
      return settings;
    },
  };
}
