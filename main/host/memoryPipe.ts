/** A client inside the studio's own process: the same messages, over no wire. */
import { StudioClient } from '../../contract/client.ts';
import { Connection } from '../studio/connection.ts';
import type { Studio } from '../studio/studio.ts';

/** @param id Unique among the studio's connections. */
export function connectInProcess(studio: Studio, id: string): StudioClient {
  const connection = new Connection(studio, id, {
    // Later, as over a wire: an answer must not come before its call has returned.
    send: (message) => queueMicrotask(() => client.receive(message)),
  });
  const client = new StudioClient({
    send: (message) => void connection.receive(message),
    close: () => connection.close(),
  });
  return client;
}
