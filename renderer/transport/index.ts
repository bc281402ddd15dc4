/** The transport that fits where the page runs. */
import { electronTransport } from './electron.ts';
import type { Transport } from './transport.ts';
import { websocketTransport } from './websocket.ts';

export type { Transport } from './transport.ts';

export async function chooseTransport(): Promise<Transport> {
  // Only the development server knows the invented studio; builds leave it out.
  if (import.meta.env.DEV && new URLSearchParams(location.search).has('fake')) {
    const { fakeTransport } = await import('./fake/index.ts');
    const wanted = new URLSearchParams(location.search);
    return fakeTransport({ takes: Number(wanted.get('takes') ?? 0), waiting: Number(wanted.get('waiting') ?? 0) });
  }
  return window.studioDesktop ? electronTransport(window.studioDesktop) : websocketTransport();
}
