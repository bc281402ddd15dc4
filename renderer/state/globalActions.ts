/** Actions that work on every screen. Screens add their own while they are shown. */
import { text } from '../i18n/index.ts';
import type { Action } from './actions.svelte.ts';
import type { AppState } from './app.svelte.ts';
import { randomSeed } from './compose.svelte.ts';
import { type Screen, screens } from './navigation.svelte.ts';

/** Names of native menu commands whose action is called otherwise here. */
export const menuCommands: Record<string, string> = {
  ...Object.fromEntries(screens.map((screen) => [screen, `go-${screen}`])),
  shortcuts: 'go-settings',
  'pause-all': 'toggle-queue',
  'resume-all': 'toggle-queue',
};

export function globalActions(app: AppState): Action[] {
  const { client, toasts, renders, navigation, compose, settings } = app;
  const running = () => renders.running;
  const go = (screen: Screen): Action => ({
    name: `go-${screen}`,
    run: () => navigation.go(screen),
  });
  const submit = (place: 'last' | 'next', kind: 'final' | 'draft') => () => void submitRender(app, place, kind);
  return [
    ...screens.map(go),
    { name: 'palette', run: () => (app.paletteOpen = !app.paletteOpen) },
    {
      name: 'focus-prompt',
      run: () => {
        navigation.go('compose');
        setTimeout(() => document.getElementById('prompt')?.focus());
      },
    },
    { name: 'render', run: submit('last', 'final') },
    { name: 'render-next', run: submit('next', 'final') },
    { name: 'draft', run: submit('last', 'draft') },
    { name: 'random-seed', run: () => compose.change({ seed: randomSeed() }) },
    {
      name: 'toggle-queue',
      run: () =>
        void toasts.attempt(() => client.call(renders.queue?.mode === 'running' ? 'queue.pause' : 'queue.resume')),
    },
    {
      name: 'cancel-render',
      available: () => running() !== null,
      run: () => void toasts.attempt(() => client.call('renders.cancel', { id: running()?.id ?? '' })),
    },
    {
      name: 'toggle-theme',
      run: () =>
        void toasts.attempt(() => settings.update({ appearance: settings.theme === 'dark' ? 'light' : 'dark' })),
    },
    {
      name: 'search-library',
      run: () => {
        navigation.go('library');
        setTimeout(() => document.getElementById('library-search')?.focus());
      },
    },
    { name: 'restart-engine', run: () => void toasts.attempt(() => app.studio.restartEngine()) },
  ];
}

/** Puts what Compose says into the queue, and offers to watch it. */
export async function submitRender(app: AppState, place: 'last' | 'next', kind: 'final' | 'draft'): Promise<void> {
  const render = await app.toasts.attempt(() => app.compose.render(place, kind));
  // Not as it stands: to where the reason is told.
  if (render === null) app.actions.run(app.compose.promptMissing ? 'focus-prompt' : 'go-compose');
  if (!render) return;
  const sweep = app.compose.seedMode === 'sweep' ? app.compose.sweepCount : 1;
  const idle = app.renders.running === null || app.renders.running.id === render.id;
  if (idle && app.renders.queue?.mode === 'running') {
    app.live.choose(null);
    app.navigation.go('live');
    return;
  }
  app.toasts.show(sweep > 1 ? text.compose.queuedMany(sweep) : text.compose.queued(render.settings.prompt), {
    label: text.screens.queue,
    run: () => app.navigation.go('queue'),
  });
}
