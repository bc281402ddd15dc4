/**
 * A studio invented in memory, for component tests and for working on the page: the whole contract, with numbers computed from
 * the settings rather than written down. Never part of a build.
 */
import { decodeClientMessage, encodeMessage, type StudioMessage } from '../../../contract/codec.ts';
import { StudioClient } from '../../../contract/client.ts';
import { toErrorShape } from '../../../contract/errors.ts';
import { type EventName, type EventPayload, isMethodName, methods } from '../../../contract/index.ts';
import { parseRequest } from '../../../contract/parse.ts';
import type { Transport } from '../transport.ts';
import { fakeHandlers } from './handlers.ts';
import { pictureAddress } from './pictures.ts';
import { createWorld, type World, type WorldOptions } from './world.ts';

export interface FakeTransport extends Transport {
  world: World;
  /** Ends the connection, as when the host goes away. */
  drop(): void;
}

export function fakeTransport(options: WorldOptions = {}): FakeTransport {
  let drop = () => {};
  const publish = <Name extends EventName>(name: Name, payload: EventPayload<Name>) =>
    listeners.forEach((tell) => tell({ kind: 'event', name, payload }));
  const listeners = new Set<(message: StudioMessage) => void>();
  const world = createWorld(options, publish);
  const handlers = fakeHandlers(world);

  async function answer(data: Uint8Array): Promise<StudioMessage> {
    const { id, method, input } = decodeClientMessage(data);
    try {
      if (!isMethodName(method)) throw new Error(`There is no method ${method}.`);
      const parsed = parseRequest(methods[method].input, input) as never;
      return { kind: 'result', id, output: await handlers[method](parsed, {}) };
    } catch (error) {
      return { kind: 'failure', id, error: toErrorShape(error) };
    }
  }

  return {
    world,
    drop: () => drop(),
    mediaUrl: (mediaId) => pictureAddress(world, mediaId),
    connect(onLost) {
      const client: StudioClient = new StudioClient({
        send: (message) => void answer(message).then((reply) => client.receive(encodeMessage(reply))),
        close: () => listeners.delete(tell),
      });
      const tell = (message: StudioMessage) => client.receive(encodeMessage(message));
      listeners.add(tell);
      drop = () => {
        listeners.delete(tell);
        client.disconnected('dropped');
        onLost('dropped');
      };
      return Promise.resolve(client);
    },
  };
}
