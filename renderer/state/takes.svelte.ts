/** Finished clips as the library shows them: one filtered list, read page by page as someone scrolls. */
import type { StudioClient } from '../../contract/client.ts';
import type { Take } from '../../contract/takes.ts';

export interface TakeFilter {
  query: string;
  projectId: string | null;
  modelId: string | null;
  favourite: boolean;
  kind: 'all' | 'final' | 'draft';
  trashed: boolean;
  order: 'newest' | 'oldest' | 'name';
}

export const everything: TakeFilter = {
  query: '',
  projectId: null,
  modelId: null,
  favourite: false,
  kind: 'all',
  trashed: false,
  order: 'newest',
};

const pageSize = 200;
const typingPauseMs = 120;

export function createTakes(client: StudioClient) {
  let filter = $state.raw<TakeFilter>(everything);
  let items = $state.raw<Take[]>([]);
  let total = $state(0);
  let loaded = $state(false);
  let cursor: string | null = null;
  let generation = 0;
  let fetching: Promise<void> | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;

  const request = (from: string | null) => ({
    ...(filter.query.trim() === '' ? {} : { query: filter.query }),
    ...(filter.projectId ? { projectId: filter.projectId } : {}),
    ...(filter.modelId ? { modelId: filter.modelId } : {}),
    ...(filter.favourite ? { favourite: true } : {}),
    ...(filter.kind === 'all' ? {} : { kind: filter.kind }),
    trashed: filter.trashed,
    order: filter.order,
    cursor: from,
    limit: pageSize,
  });

  async function reload() {
    const mine = ++generation;
    const page = await client.call('takes.list', request(null));
    if (mine !== generation) return;
    ({ items, total, nextCursor: cursor } = page);
    loaded = true;
  }

  const reloadSoon = (ms = typingPauseMs) => {
    clearTimeout(timer);
    timer = setTimeout(() => void reload().catch(() => {}), ms);
  };

  const ends = [
    client.on('takes.changed', (take) => {
      const known = items.some(({ id }) => id === take.id);
      const belongs = (take.trashedAt !== null) === filter.trashed && (!filter.favourite || take.favourite);
      if (known && belongs) items = items.map((item) => (item.id === take.id ? take : item));
      else if (known) {
        items = items.filter(({ id }) => id !== take.id);
        total--;
      } else reloadSoon();
    }),
    client.on('takes.removed', ({ ids }) => {
      const kept = items.filter(({ id }) => !ids.includes(id));
      total -= items.length - kept.length;
      items = kept;
    }),
  ];

  return {
    get filter() {
      return filter;
    },
    get items() {
      return items;
    },
    get total() {
      return total;
    },
    get loaded() {
      return loaded;
    },
    get filtered() {
      return filter.query.trim() !== '' || filter.favourite || filter.modelId !== null || filter.kind !== 'all';
    },
    load: reload,
    setFilter(changes: Partial<TakeFilter>) {
      filter = { ...filter, ...changes };
      reloadSoon('query' in changes ? typingPauseMs : 0);
    },
    /** The next page; nothing after the last. */
    async more() {
      if (cursor === null || fetching) return fetching;
      const mine = generation;
      fetching = client
        .call('takes.list', request(cursor))
        .then((page) => {
          if (mine !== generation) return;
          const known = new Set(items.map(({ id }) => id));
          items = [...items, ...page.items.filter(({ id }) => !known.has(id))];
          ({ total, nextCursor: cursor } = page);
        })
        .finally(() => (fetching = null));
      return fetching;
    },
    dispose() {
      clearTimeout(timer);
      ends.forEach((end) => end());
    },
  };
}

export type TakesState = ReturnType<typeof createTakes>;
