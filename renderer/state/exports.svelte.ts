/** Exports of this session. */
import type { StudioClient } from '../../contract/client.ts';
import type { ClipExport } from '../../contract/exports.ts';

export function createExports(client: StudioClient, onDone: (done: ClipExport) => void) {
  let items = $state.raw<ClipExport[]>([]);
  const end = client.on('exports.changed', (changed) => {
    items = [changed, ...items.filter(({ id }) => id !== changed.id)];
    if (changed.state === 'done' || changed.state === 'failed') onDone(changed);
  });
  return {
    get running() {
      return items.filter(({ state }) => state === 'running');
    },
    dispose: end,
  };
}

export type ExportsState = ReturnType<typeof createExports>;
