/** A served studio in a process of its own, and its client in the test. */
import { StudioClient } from '../../contract/client.ts';
import { WebSocket } from 'ws';
import { type RunningCli, startCli } from './cli.ts';

export interface Served {
  cli: RunningCli;
  /** Token included. */
  url: string;
  port: number;
  origin: string;
  token: string;
}

export async function startServe(
  library: string,
  args: string[] = [],
  env: Record<string, string> = {},
): Promise<Served> {
  const cli = startCli(['serve', '--library', library, '--port', '0', '--json', ...args], env);
  const ready = await cli.line((line) => line.event === 'ready');
  if (!ready) throw new Error(`serve ended: ${(await cli.result).stderr}`);
  const url = new URL(ready['url'] as string);
  return {
    cli,
    url: url.href,
    port: Number(url.port),
    origin: url.origin,
    token: url.searchParams.get('token') as string,
  };
}

/** Connects as a program does. */
export async function connectTo({
  origin,
  token,
}: Pick<Served, 'origin' | 'token'>): Promise<StudioClient & AsyncDisposable> {
  const socket = await openSocket(origin, { authorization: `Bearer ${token}` });
  const client = new StudioClient({ send: (message) => socket.send(message), close: () => socket.close() });
  socket.on('message', (data: Buffer) => client.receive(data));
  socket.on('close', () => client.disconnected('closed'));
  return Object.assign(client, {
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => socket.once('close', resolve));
      client.close();
      await closed;
    },
  });
}

/** An open WebSocket; rejects with the status of a refusal. */
export function openSocket(origin: string, headers: Record<string, string>, path = '/studio'): Promise<WebSocket> {
  const socket = new WebSocket(`${origin.replace('http', 'ws')}${path}`, { headers, perMessageDeflate: false });
  return new Promise((resolve, reject) => {
    socket.once('open', () => resolve(socket));
    socket.once('unexpected-response', (request, response) => {
      socket.on('error', () => {}); // the aborted handshake
      request.destroy();
      reject(new Error(String(response.statusCode)));
    });
    socket.once('error', reject);
  });
}
