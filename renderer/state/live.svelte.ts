/** The render someone looks at, running or done: its statistics, its preview, and attention maps of the chosen cell. */
import type { StudioClient } from '../../contract/client.ts';
import type { EventPayload } from '../../contract/index.ts';
import type { Render } from '../../contract/renders.ts';
import type { RenderStatistics } from '../../contract/statistics.ts';
import { type AttentionMaps, readMaps } from './maps.ts';
import type { RendersState } from './renders.svelte.ts';

export type LiveView = 'preview' | 'received' | 'words';
export type Preview = EventPayload<'renders.preview'>;

export interface Cell {
  step: number;
  layer: number;
}

const refreshPauseMs = 250;
const keptMaps = 40;

export function createLive(client: StudioClient, renders: RendersState) {
  let chosenId = $state<string | null>(null);
  let render = $state.raw<Render | null>(null);
  let statistics = $state.raw<RenderStatistics | null>(null);
  let preview = $state.raw<Preview | null>(null);
  let view = $state<LiveView>('preview');
  let cell = $state.raw<Cell | null>(null);
  let word = $state<number | null>(null);
  let frame = $state(0);
  let playing = $state(true);
  let maps = $state.raw<ReadonlyMap<string, AttentionMaps>>(new Map());
  let refreshing: ReturnType<typeof setTimeout> | undefined;
  let shownId: string | null = null;

  const targetId = $derived(chosenId ?? renders.running?.id ?? null);
  const layer = $derived(cell?.layer ?? 0);
  /** The maps to show: of the chosen step and layer, otherwise the newest of that layer. */
  const shownMaps = $derived.by(() => {
    const exact = cell ? maps.get(`${cell.step}/${cell.layer}`) : undefined;
    if (exact) return exact;
    let newest: AttentionMaps | undefined;
    for (const one of maps.values()) if (one.layer === layer && (!newest || one.step > newest.step)) newest = one;
    return newest ?? null;
  });

  async function refresh() {
    const id = shownId;
    if (id === null) return;
    const fresh = await client.call('renders.statistics', { id });
    if (id === shownId) statistics = fresh;
  }
  function refreshSoon() {
    refreshing ??= setTimeout(() => {
      refreshing = undefined;
      void refresh().catch(() => {}); // the next step asks again
    }, refreshPauseMs);
  }

  function keepMaps(header: Parameters<typeof readMaps>[0], data: Uint8Array) {
    const read = readMaps(header, data);
    const next = new Map(maps);
    next.set(`${read.step}/${read.layer}`, read);
    for (const key of next.keys()) {
      if (next.size <= keptMaps) break;
      next.delete(key);
    }
    maps = next;
  }

  const watch = () =>
    shownId === null
      ? Promise.resolve({})
      : client.call('renders.watch', { id: shownId, preview: true, maps: { layer, words: true } });

  const ends = [
    client.on('renders.changed', (changed) => {
      if (changed.id !== shownId) return;
      const ended = render?.state === 'running' && changed.state !== 'running';
      render = changed;
      if (ended || changed.state === 'done') refreshSoon();
    }),
    client.on('renders.step', ({ id, step }) => {
      if (id !== shownId) return;
      if (statistics) {
        const others = statistics.steps.filter((one) => one.step !== step.step);
        statistics = { ...statistics, steps: [...others, step].sort((a, b) => a.step - b.step) };
      }
      refreshSoon();
    }),
    client.on('renders.text', ({ id, text }) => {
      if (id === shownId && statistics) statistics = { ...statistics, text };
      else if (id === shownId) refreshSoon();
    }),
    client.on('renders.preview', (event) => {
      if (event.id === shownId) preview = event;
    }),
    client.on('renders.maps', ({ id, header, data }) => {
      if (id === shownId) keepMaps(header, data);
    }),
  ];

  const live = {
    get targetId() {
      return targetId;
    },
    get render() {
      return render;
    },
    get statistics() {
      return statistics;
    },
    get preview() {
      return preview;
    },
    get view() {
      return view;
    },
    set view(chosen) {
      view = chosen;
    },
    get cell() {
      return cell;
    },
    get layer() {
      return layer;
    },
    get word() {
      return word;
    },
    get frame() {
      return frame;
    },
    set frame(index) {
      frame = index;
    },
    get playing() {
      return playing;
    },
    set playing(on) {
      playing = on;
    },
    get maps() {
      return shownMaps;
    },
    get shownId() {
      return shownId;
    },
    get followsQueue() {
      return chosenId === null;
    },
    /** Looks at one render, or (null) at whatever runs. */
    choose(id: string | null) {
      chosenId = id;
    },
    /** The screen is shown again: what was missed is read, and previews come from now on. */
    async enter() {
      if (shownId !== null) await Promise.all([watch(), refresh()]);
    },
    /** The screen is left: no more previews. */
    leave() {
      if (shownId !== null) void client.call('renders.unwatch', { id: shownId }).catch(() => {});
    },
    /** Called when the render to show has changed. */
    async show(id: string | null) {
      if (id === shownId) return;
      // A finished render stays on show until another one runs.
      if (id === null && shownId !== null) return;
      const before = shownId;
      shownId = id;
      render = null;
      statistics = null;
      preview = null;
      maps = new Map();
      cell = null;
      word = null;
      frame = 0;
      if (before !== null) void client.call('renders.unwatch', { id: before }).catch(() => {});
      if (id === null) return;
      const [fresh] = await Promise.all([client.call('renders.get', { id }), watch(), refresh()]);
      if (id !== shownId) return;
      render = fresh;
      await live.loadKeptMaps();
    },
    /** A cell of layer × step: its maps are fetched where they were kept, and asked of the steps to come. */
    async chooseCell(chosen: Cell | null) {
      cell = chosen;
      if (shownId === null) return;
      await watch();
      await live.loadKeptMaps();
    },
    chooseWord(index: number | null) {
      word = index;
      if (index !== null) view = 'words';
      else if (view === 'words') view = 'preview';
    },
    async loadKeptMaps() {
      const id = shownId;
      if (id === null || !statistics) return;
      const kept = statistics.mappedSteps.filter((one) => (cell ? one.layer === cell.layer : true));
      const wanted = (cell && kept.find((one) => one.step === cell?.step)) ?? kept.at(-1);
      if (!wanted || maps.has(`${wanted.step}/${wanted.layer}`)) return;
      const { header, data } = await client.call('renders.maps', { id, step: wanted.step, layer: wanted.layer });
      if (id === shownId) keepMaps(header, data);
    },
    dispose() {
      clearTimeout(refreshing);
      ends.forEach((end) => end());
    },
  };
  return live;
}

export type LiveState = ReturnType<typeof createLive>;
