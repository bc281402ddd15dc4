/** Saved presets. */
import type { StudioClient } from '../../contract/client.ts';
import type { Preset } from '../../contract/presets.ts';

export function createPresets(client: StudioClient) {
  let items = $state.raw<Preset[]>([]);
  const end = client.on('presets.changed', (event) => (items = event.items));
  return {
    get items() {
      return items;
    },
    async load() {
      items = (await client.call('presets.list')).items;
    },
    save: (name: string, kind: Preset['kind'], value: Preset['value']) =>
      client.call('presets.save', { name, kind, value }),
    remove: (id: string) => client.call('presets.delete', { id }),
    dispose: end,
  };
}

export type PresetsState = ReturnType<typeof createPresets>;
