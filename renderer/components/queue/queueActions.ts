/** What can be done about renders in the queue, with its undo. */
import type { Render } from '../../../contract/renders.ts';
import { text } from '../../i18n/index.ts';
import type { AppState } from '../../state/app.svelte.ts';

export function queueActions(app: AppState) {
  const { client, toasts } = app;
  const call = (method: 'renders.pause' | 'renders.resume' | 'renders.retry' | 'renders.cancel', render: Render) =>
    toasts.attempt(() => client.call(method, { id: render.id }));
  return {
    pause: (render: Render) => call('renders.pause', render),
    resume: (render: Render) => call('renders.resume', render),
    retry: (render: Render) => call('renders.retry', render),
    async cancel(render: Render) {
      if (await call('renders.cancel', render))
        toasts.undoable(text.queue.cancelled, () => client.call('renders.retry', { id: render.id }));
    },
    duplicate: (render: Render) => toasts.attempt(() => client.call('renders.duplicate', { id: render.id })),
    moveTo: (render: Render, to: 'first' | 'last') =>
      toasts.attempt(() => client.call('renders.move', { ids: [render.id], to })),
    async remove(renders: Render[]) {
      const ids = renders.map(({ id }) => id);
      if (ids.length === 0 || !(await toasts.attempt(() => client.call('renders.remove', { ids })))) return;
      toasts.undoable(text.queue.removed(ids.length), () => client.call('renders.restore', { ids }));
    },
    useSettings(render: Render) {
      app.compose.use(render.settings, { lockSeed: true });
      app.navigation.go('compose');
    },
    watch(render: Render) {
      app.live.choose(render.state === 'running' ? null : render.id);
      app.navigation.go('live');
    },
  };
}
