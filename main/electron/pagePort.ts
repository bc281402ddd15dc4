/** One message port for each page: the contract's binary messages, and no other way from the page into the app. */
import { type IpcMain, MessageChannelMain, type WebFrameMain } from 'electron';
import { largestClientMessageBytes } from '../../contract/codec.ts';
import { Connection } from '../studio/connection.ts';
import type { Studio } from '../studio/studio.ts';
import { isStudioPage } from './address.ts';
import { channels } from './channels.ts';

export interface PagePorts {
  /** Ends all connections. */
  close(): void;
}

/** @param onConnected Told when a page is connected and can be spoken to. */
export function openPagePorts(
  ipc: IpcMain,
  studio: Studio,
  development: string | undefined,
  onConnected: () => void,
): PagePorts {
  const open = new Set<() => void>();
  let next = 1;
  ipc.on(channels.connect, ({ senderFrame }) => {
    // Only the page itself: no frame inside it, nothing that was navigated to.
    if (!senderFrame || senderFrame.parent !== null || !isStudioPage(senderFrame.url, development)) return;
    open.add(connect(studio, senderFrame, `page-${next++}`, (close) => open.delete(close)));
    onConnected();
  });
  return {
    close() {
      for (const close of open) close();
    },
  };
}

function connect(studio: Studio, page: WebFrameMain, id: string, onClosed: (close: () => void) => void): () => void {
  const { port1: port, port2 } = new MessageChannelMain();
  const connection = new Connection(studio, id, { send: (message) => port.postMessage(message) });
  const close = () => {
    connection.close();
    port.close();
    onClosed(close);
  };
  port.on('message', ({ data }: { data: unknown }) => {
    const sound = data instanceof Uint8Array && data.length <= largestClientMessageBytes;
    if (sound) connection.receive(data).catch(close);
    else close();
  });
  port.on('close', close);
  port.start();
  page.postMessage(channels.port, null, [port2]);
  return close;
}
