/** The studio's settings, and what of them shapes the page: colours and motion. */
import type { StudioClient } from '../../contract/client.ts';
import type { MethodInput } from '../../contract/index.ts';
import { type StudioSettings, studioSettings } from '../../contract/settings.ts';

export function createSettings(client: StudioClient) {
  let value = $state.raw<StudioSettings>(studioSettings.parse({}));
  const darkSystem = matchMedia('(prefers-color-scheme: dark)');
  const stillSystem = matchMedia('(prefers-reduced-motion: reduce)');
  let systemDark = $state(darkSystem.matches);
  let systemStill = $state(stillSystem.matches);
  const follow = () => {
    systemDark = darkSystem.matches;
    systemStill = stillSystem.matches;
  };
  darkSystem.addEventListener('change', follow);
  stillSystem.addEventListener('change', follow);
  const end = client.on('settings.changed', (changed) => (value = changed));

  return {
    get value() {
      return value;
    },
    get theme(): 'dark' | 'light' {
      if (value.appearance === 'system') return systemDark ? 'dark' : 'light';
      return value.appearance;
    },
    get still(): boolean {
      return value.reducedMotion === 'system' ? systemStill : value.reducedMotion === 'on';
    },
    async load() {
      value = await client.call('settings.get');
    },
    async update(patch: MethodInput<'settings.update'>) {
      value = await client.call('settings.update', patch);
    },
    dispose() {
      end();
      darkSystem.removeEventListener('change', follow);
      stillSystem.removeEventListener('change', follow);
    },
  };
}

export type SettingsState = ReturnType<typeof createSettings>;
