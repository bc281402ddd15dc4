/** What can be done about takes, with its undo. */
import { policyPresets } from '../../../contract/attentionPolicy.ts';
import type { Take } from '../../../contract/takes.ts';
import { show, text } from '../../i18n/index.ts';
import type { AppState } from '../../state/app.svelte.ts';

export function takeActions(app: AppState) {
  const { client, toasts } = app;
  return {
    favourite: (take: Take) =>
      toasts.attempt(() => client.call('takes.update', { id: take.id, favourite: !take.favourite })),
    async trash(takes: Take[]) {
      const ids = takes.map(({ id }) => id);
      const done = await toasts.attempt(() => client.call('takes.trash', { ids }));
      if (!done) return;
      app.selection.clear();
      toasts.undoable(text.library.trashed(ids.length), () => client.call('takes.restore', { ids }));
    },
    async restore(takes: Take[]) {
      const ids = takes.map(({ id }) => id);
      await toasts.attempt(() => client.call('takes.restore', { ids }));
      app.selection.clear();
      toasts.show(text.library.restored(ids.length));
    },
    async emptyTrash() {
      const done = await toasts.attempt(() => client.call('takes.emptyTrash'));
      if (done) toasts.show(text.library.trashEmptied(done.takes, show.bytes(done.freedBytes)));
    },
    useSettings(take: Take) {
      app.compose.use(take.settings, { lockSeed: true, sourceTakeId: take.id });
      app.navigation.go('compose');
    },
    async again(take: Take, changes: Partial<Take['settings']>) {
      const render = await toasts.attempt(() =>
        client.call('renders.createFromTake', { takeId: take.id, changes, kind: 'final' }),
      );
      if (!render) return;
      toasts.show(text.compose.queued(render.settings.prompt), {
        label: text.compose.watch,
        run: () => {
          app.live.choose(null);
          app.navigation.go('live');
        },
      });
    },
    dense: { policy: policyPresets.dense },
    statistics(take: Take) {
      app.live.choose(take.renderId);
      app.navigation.go('live');
    },
    exportAs: (take: Take, format: Take['clip']['format']) =>
      toasts.attempt(() => client.call('exports.start', { takeId: take.id, format })),
    reveal: (take: Take) => toasts.attempt(() => client.call('host.reveal', { mediaId: take.clip.mediaId })),
    async compareWith(take: Take, other?: Take) {
      if (other) {
        app.compared = [take, other];
        return;
      }
      // The closest relative: another take of the same prompt, one with another policy first.
      const { items } = await client.call('takes.list', { query: take.settings.prompt.slice(0, 200), limit: 100 });
      const others = items.filter(({ id, settings }) => id !== take.id && settings.prompt === take.settings.prompt);
      const sameSeed = others.filter(({ settings }) => settings.seed === take.settings.seed);
      const chosen = sameSeed[0] ?? others[0];
      if (chosen) app.compared = [take, chosen];
      else toasts.show(text.compareView.noOther);
    },
  };
}
