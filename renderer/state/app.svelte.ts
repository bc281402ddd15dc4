/** Everything the page knows over one connection, put together once and provided to components by context. */
import type { StudioClient } from '../../contract/client.ts';
import { fromErrorShape } from '../../contract/errors.ts';
import type { Take } from '../../contract/takes.ts';
import { text } from '../i18n/index.ts';
import type { Transport } from '../transport/index.ts';
import { createActions } from './actions.svelte.ts';
import { createCompose } from './compose.svelte.ts';
import { createExports } from './exports.svelte.ts';
import { createLive } from './live.svelte.ts';
import { createModels } from './models.svelte.ts';
import { createNavigation } from './navigation.svelte.ts';
import { createPresets } from './presets.svelte.ts';
import { createProjects } from './projects.svelte.ts';
import { createRenders } from './renders.svelte.ts';
import { createSelection } from './selection.svelte.ts';
import { createSettings } from './settings.svelte.ts';
import { createStudio } from './studio.svelte.ts';
import { createTakes } from './takes.svelte.ts';
import { createToasts } from './toasts.svelte.ts';

export function createApp(client: StudioClient, transport: Transport) {
  const toasts = createToasts();
  const navigation = createNavigation();
  const studio = createStudio(client);
  const settings = createSettings(client);
  const renders = createRenders(client);
  const takes = createTakes(client);
  const models = createModels(client);
  const projects = createProjects(client, settings);
  const presets = createPresets(client);
  const compose = createCompose(client, { models, settings, projects });
  const live = createLive(client, renders);
  const actions = createActions(settings);
  const selection = createSelection();
  const exports = createExports(client, (done) => {
    if (done.state === 'failed' && done.error) toasts.error(fromErrorShape(done.error));
    else if (done.state === 'done')
      toasts.show(
        text.library.exported(done.path),
        studio.status?.host.canReveal && done.mediaId
          ? { label: text.library.reveal, run: () => client.call('host.reveal', { mediaId: done.mediaId as string }) }
          : undefined,
      );
  });
  let paletteOpen = $state(false);
  let compared = $state.raw<[Take, Take] | null>(null);
  let opened = $state.raw<Take | null>(null);

  const parts = [navigation, studio, settings, renders, takes, models, projects, presets, compose, live, exports];

  const app = {
    client,
    transport,
    toasts,
    navigation,
    studio,
    settings,
    renders,
    takes,
    models,
    projects,
    presets,
    compose,
    live,
    actions,
    exports,
    selection,
    get paletteOpen() {
      return paletteOpen;
    },
    set paletteOpen(open) {
      paletteOpen = open;
    },
    /** Two clips side by side, over whatever screen is shown. */
    get compared() {
      return compared;
    },
    set compared(pair) {
      compared = pair;
    },
    /** The take whose details are open in the library. */
    get opened() {
      return opened;
    },
    set opened(take) {
      opened = take;
    },
    mediaUrl: (mediaId: string) => transport.mediaUrl(mediaId),
    /** What the first picture needs, then the rest. Errors: those of the calls; a corrupt library is no error here. */
    async load() {
      await studio.load();
      if (studio.status?.library.state !== 'ok') return;
      await Promise.all([settings.load(), models.load(), projects.load(), renders.load(), takes.load()]);
      compose.load();
      const rest = [presets.load(), studio.loadEngine(), models.loadMore()];
      for (const load of rest) load.catch((error: unknown) => toasts.error(error));
    },
    dispose: () => parts.forEach((part) => part.dispose()),
  };
  return app;
}

export type AppState = ReturnType<typeof createApp>;
