/** Tells every connection what has happened. Events broadcast state; they never steer. */
import type { EventName, EventPayload } from '../../contract/index.ts';

export type EventListener = (name: EventName, payload: unknown) => void;

export type Publish = <Name extends EventName>(name: Name, payload: EventPayload<Name>) => void;

export class EventHub {
  readonly #listeners = new Set<EventListener>();

  readonly publish: Publish = (name, payload) => {
    for (const listener of [...this.#listeners]) listener(name, payload);
  };

  /** Returns the function that ends it. */
  listen(listener: EventListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
