/** Which connection wants to see what of which render. */
import type { StepOptions } from '../../engine/binding.ts';

export interface Watch {
  preview: boolean;
  maps: { layer: number; head?: number; words: boolean } | null;
}

export class Watchers {
  /** Connection → render → what it wants; the latest wish is the last entry. */
  readonly #watches = new Map<string, Map<string, Watch>>();

  watch(connection: string, renderId: string, watch: Watch): void {
    const own = this.#watches.get(connection) ?? new Map<string, Watch>();
    own.delete(renderId);
    own.set(renderId, watch);
    // Re-inserted, so that the latest wish decides which layer's maps the engine takes.
    this.#watches.delete(connection);
    this.#watches.set(connection, own);
  }

  unwatch(connection: string, renderId: string): void {
    this.#watches.get(connection)?.delete(renderId);
  }

  disconnected(connection: string): void {
    this.#watches.delete(connection);
  }

  /** Whether a watchers-only event of a render is for this connection. */
  wants(connection: string, event: string, renderId: string): boolean {
    const watch = this.#watches.get(connection)?.get(renderId);
    return event === 'renders.maps' ? watch?.maps != null : (watch?.preview ?? false);
  }

  /** What to ask of the next step. The engine takes maps of one layer per step. */
  wanted(renderId: string): StepOptions {
    const watches = [...this.#watches.values()].flatMap((own) => own.get(renderId) ?? []);
    const maps = watches.findLast((watch) => watch.maps !== null)?.maps;
    return { ...(watches.some((watch) => watch.preview) ? { preview: true } : {}), ...(maps ? { maps } : {}) };
  }
}
