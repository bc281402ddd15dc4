/** The studio that answers: what it is, how its library stands, and its engine. */
import type { StudioClient } from '../../contract/client.ts';
import type { EngineStatus } from '../../contract/engine.ts';
import type { StudioStatus } from '../../contract/studio.ts';

export function createStudio(client: StudioClient) {
  let status = $state.raw<StudioStatus | null>(null);
  let engine = $state.raw<EngineStatus | null>(null);
  let closing = $state<string | null>(null);
  const ends = [
    client.on('engine.changed', (changed) => (engine = changed)),
    client.on('library.changed', (library) => {
      if (status) status = { ...status, library };
    }),
    client.on('studio.closing', ({ reason }) => (closing = reason)),
  ];

  return {
    get status() {
      return status;
    },
    get engine() {
      return engine;
    },
    get closing() {
      return closing;
    },
    async load() {
      status = await client.call('studio.status');
    },
    async loadEngine() {
      engine = await client.call('engine.status');
    },
    async restartEngine() {
      engine = await client.call('engine.restart');
    },
    async restoreLibrary(name?: string) {
      status = await client.call('library.restore', name === undefined ? {} : { name });
    },
    dispose: () => ends.forEach((end) => end()),
  };
}

export type StudioState = ReturnType<typeof createStudio>;
