/** The desktop app: a message port that the preload script hands to the page. */
import { StudioClient } from '../../contract/client.ts';
import { lost, mediaUrl, type Transport } from './transport.ts';

/** What the preload script puts on the window; nothing of Node. */
export interface StudioDesktop {
  pathOf(file: File): string | null;
  onCommand(listener: (action: string) => void): () => void;
  onFileOpened(listener: (file: { uploadId: string; name: string }) => void): () => void;
}

declare global {
  interface Window {
    studioDesktop?: StudioDesktop;
  }
}

const portWaitMs = 10_000;

export function electronTransport(desktop: StudioDesktop): Transport {
  return {
    mediaUrl,
    onCommand: (listener) => desktop.onCommand(listener),
    onFileOpened: (listener) => desktop.onFileOpened(listener),
    pathOf: (file) => desktop.pathOf(file),
    async connect(onLost) {
      const port = await receivePort();
      const client = new StudioClient({ send: (message) => port.postMessage(message), close: () => port.close() });
      port.onmessage = ({ data }) =>
        client.receive(data instanceof Uint8Array ? data : new Uint8Array(data as ArrayBuffer));
      port.addEventListener('close', () => {
        client.disconnected('The studio has ended.');
        onLost('The studio has ended.');
      });
      port.start();
      return client;
    },
  };
}

function receivePort(): Promise<MessagePort> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      window.removeEventListener('message', take);
      reject(lost('The studio did not open a connection.'));
    }, portWaitMs);
    function take({ source, data, ports }: MessageEvent) {
      const port = ports[0];
      if (source !== window || data !== 'studio-port' || !port) return;
      clearTimeout(timer);
      window.removeEventListener('message', take);
      resolve(port);
    }
    window.addEventListener('message', take);
    window.postMessage('studio-port-please', location.origin);
  });
}
