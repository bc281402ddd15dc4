/** The queue: renders that wait, run or stopped, and how the queue as a whole stands. Finished ones are takes. */
import type { StudioClient } from '../../contract/client.ts';
import type { QueueStatus } from '../../contract/queue.ts';
import type { Render, RenderProgress, RenderState } from '../../contract/renders.ts';
import { everyPage } from './pages.ts';

const listed: RenderState[] = ['queued', 'running', 'paused', 'failed', 'cancelled'];

export function createRenders(client: StudioClient) {
  let items = $state.raw<Render[]>([]);
  let queue = $state.raw<QueueStatus | null>(null);
  let progress = $state.raw<{ id: string; progress: RenderProgress } | null>(null);
  let lastDone = $state.raw<Render | null>(null);

  const byPosition = $derived([...items].sort((a, b) => a.position - b.position));
  const running = $derived(items.find((render) => render.state === 'running') ?? null);
  const waiting = $derived(byPosition.filter(({ state }) => state === 'queued' || state === 'paused'));
  const stopped = $derived(
    items
      .filter(({ state }) => state === 'failed' || state === 'cancelled')
      .sort((a, b) => (b.endedAt ?? 0) - (a.endedAt ?? 0)),
  );

  // Many changes come at once when a queue is reordered: one new list for all of them.
  const pending = new Map<string, Render | null>();
  function put(id: string, render: Render | null) {
    if (pending.size === 0) queueMicrotask(flush);
    pending.set(id, render);
  }
  function flush() {
    const changes = new Map(pending);
    pending.clear();
    const kept = items.flatMap((item) => {
      const changed = changes.get(item.id);
      changes.delete(item.id);
      return changed === undefined ? item : (changed ?? []);
    });
    items = [...kept, ...[...changes.values()].filter((render) => render !== null)];
  }

  const ends = [
    client.on('renders.changed', (render) => {
      put(render.id, listed.includes(render.state) ? render : null);
      if (render.state === 'done') lastDone = render;
      if (progress?.id === render.id && render.state !== 'running') progress = null;
      if (render.state === 'running' && render.progress) progress = { id: render.id, progress: render.progress };
    }),
    client.on('renders.removed', ({ ids }) => ids.forEach((id) => put(id, null))),
    client.on('renders.progress', (event) => (progress = event)),
    client.on('queue.changed', (changed) => (queue = changed)),
  ];

  const renders = {
    get waiting() {
      return waiting;
    },
    get running() {
      return running;
    },
    get stopped() {
      return stopped;
    },
    get queue() {
      return queue;
    },
    /** Of the running render, newer than what the render itself says. */
    get progress(): RenderProgress | null {
      return running && progress?.id === running.id ? progress.progress : (running?.progress ?? null);
    },
    /** The render that ended well most recently while this page looked on. */
    get lastDone() {
      return lastDone;
    },
    find: (id: string) => items.find((render) => render.id === id),
    async load() {
      queue = await client.call('queue.status');
      items = await everyPage((cursor) => client.call('renders.list', { states: listed, cursor, limit: 500 }));
    },
    /** @param place Index among the waiting ones, before the move. */
    async moveTo(id: string, place: number) {
      const before = waiting.filter((render) => render.id !== id)[place];
      await client.call('renders.move', { ids: [id], to: before ? { before: before.id } : 'last' });
    },
    async moveBy(id: string, offset: number) {
      const at = waiting.findIndex((render) => render.id === id);
      const to = Math.max(0, Math.min(waiting.length - 1, at + offset));
      if (at >= 0 && to !== at) await renders.moveTo(id, to);
    },
    dispose: () => ends.forEach((end) => end()),
  };
  return renders;
}

export type RendersState = ReturnType<typeof createRenders>;
