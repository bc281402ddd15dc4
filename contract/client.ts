/** The client's side of the contract over any pipe: calls as promises, events to listeners. */
import { decodeStudioMessage, encodeMessage } from './codec.ts';
import { fromErrorShape, StudioError } from './errors.ts';
import {
  type EventName,
  type EventPayload,
  isEventName,
  type MethodInput,
  type MethodName,
  type MethodOutput,
} from './index.ts';

/** A way to send whole messages; what arrives goes to `StudioClient.receive`. */
export interface Pipe {
  send(message: Uint8Array): void;
  close(): void;
}

type Listener = (payload: unknown) => void;

export class StudioClient {
  readonly #pipe: Pipe;
  readonly #calls = new Map<number, { resolve(output: unknown): void; reject(error: Error): void }>();
  readonly #listeners = new Map<EventName, Set<Listener>>();
  #nextId = 1;
  #closed: StudioError | undefined;

  constructor(pipe: Pipe) {
    this.#pipe = pipe;
  }

  /** Rejects with a StudioError: the studio's own, or `disconnected`. */
  call<Name extends MethodName>(
    method: Name,
    ...[input]: Record<never, never> extends MethodInput<Name> ? [MethodInput<Name>?] : [MethodInput<Name>]
  ): Promise<MethodOutput<Name>> {
    return new Promise<unknown>((resolve, reject) => {
      if (this.#closed) return reject(this.#closed);
      const id = this.#nextId++;
      this.#calls.set(id, { resolve, reject });
      this.#pipe.send(encodeMessage({ kind: 'call', id, method, input: input ?? {} }));
    }) as Promise<MethodOutput<Name>>;
  }

  /** Returns the function that ends it. */
  on<Name extends EventName>(event: Name, listener: (payload: EventPayload<Name>) => void): () => void {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners);
    listeners.add(listener as Listener);
    return () => listeners.delete(listener as Listener);
  }

  /** The pipe's owner hands over every message that arrives. Both ends are of one build: outputs are not parsed again. */
  receive(data: Uint8Array): void {
    const message = decodeStudioMessage(data);
    switch (message.kind) {
      case 'event':
        if (isEventName(message.name)) {
          for (const listener of [...(this.#listeners.get(message.name) ?? [])]) listener(message.payload);
        }
        break;
      case 'result':
        this.#settle(message.id)?.resolve(message.output);
        break;
      case 'failure':
        this.#settle(message.id)?.reject(fromErrorShape(message.error));
        break;
    }
  }

  /** The pipe's owner tells that it has ended: waiting calls reject. */
  disconnected(reason: string): void {
    this.#closed ??= new StudioError('disconnected', reason);
    for (const { reject } of this.#calls.values()) reject(this.#closed);
    this.#calls.clear();
  }

  close(): void {
    this.disconnected('The connection was closed.');
    this.#pipe.close();
  }

  #settle(id: number) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }
}
