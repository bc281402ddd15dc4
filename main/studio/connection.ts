/** One client over one pipe: messages in, answers and events out. The same for every host. */
import { decodeClientMessage, encodeMessage, type StudioMessage } from '../../contract/codec.ts';
import { toErrorShape } from '../../contract/errors.ts';
import type { Studio } from './studio.ts';

export interface Outgoing {
  send(message: Uint8Array): void;
  /** Bytes that wait to be sent; when they grow, previews are left out rather than piled up. */
  pendingBytes?(): number;
}

const pendingLimit = 16 * 1024 * 1024;

export class Connection {
  readonly #studio: Studio;
  readonly #out: Outgoing;
  readonly #id: string;
  readonly #unlisten: () => void;

  /** @param id Unique among the studio's connections. */
  constructor(studio: Studio, id: string, out: Outgoing) {
    this.#studio = studio;
    this.#out = out;
    this.#id = id;
    this.#unlisten = studio.events.listen((name, payload) => {
      if (!studio.wants(id, name, payload)) return;
      const heavy = name === 'renders.preview' || name === 'renders.maps' || name === 'renders.progress';
      if (heavy && (out.pendingBytes?.() ?? 0) > pendingLimit) return;
      this.#send({ kind: 'event', name, payload });
    });
  }

  /** Handles one message. Rejects (bad-request) for what is no message: the pipe's owner decides what that means. */
  async receive(data: Uint8Array): Promise<void> {
    const { id, method, input } = decodeClientMessage(data);
    try {
      const output = await this.#studio.call(method, input, { connection: this.#id });
      this.#send({ kind: 'result', id, output });
    } catch (error) {
      this.#send({ kind: 'failure', id, error: toErrorShape(error) });
    }
  }

  close(): void {
    this.#unlisten();
    this.#studio.disconnected(this.#id);
  }

  #send(message: StudioMessage): void {
    this.#out.send(encodeMessage(message));
  }
}
