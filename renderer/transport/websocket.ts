/** The headless host: one WebSocket on the page's own origin, let in by the cookie that came with the page. */
import { StudioClient } from '../../contract/client.ts';
import { lost, mediaUrl, type Transport } from './transport.ts';

export function websocketTransport(address = socketAddress()): Transport {
  return {
    mediaUrl,
    connect: (onLost) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(address);
        socket.binaryType = 'arraybuffer';
        const client = new StudioClient({
          send: (message) => socket.send(message as Uint8Array<ArrayBuffer>),
          close: () => socket.close(),
        });
        socket.onmessage = ({ data }) => client.receive(new Uint8Array(data as ArrayBuffer));
        socket.onopen = () => resolve(client);
        socket.onclose = ({ reason }) => {
          const why = reason || 'The studio does not answer.';
          reject(lost(why));
          client.disconnected(why);
          onLost(why);
        };
      }),
  };
}

function socketAddress(): string {
  const address = new URL('studio', document.baseURI);
  address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
  return address.href;
}
