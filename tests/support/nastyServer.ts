/** A web server with faults on demand: each request for a file takes the next fault of its list, then all is well. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { until } from './processes.ts';

export type Fault =
  /** Ends the connection after so many bytes. */
  | { drop: number }
  /** Announces more, or fewer, bytes than it sends. */
  | { announce: number }
  | { status: number }
  /** Sends nothing, ever. */
  | { silent: true }
  /** Answers as if no part had been asked for. */
  | { noRange: true }
  /** A part that begins elsewhere than asked. */
  | { shifted: number };

export interface ServedFile {
  content: Buffer;
  etag: string | null;
  faults: Fault[];
  /** Whether so many bytes have been taken in: a connection is dropped only then. */
  arrived?(bytes: number): boolean;
}

export interface NastyServer {
  url(name: string): string;
  files: Map<string, ServedFile>;
  /** Range headers of all requests, null where there was none. */
  ranges: (string | null)[];
  close(): Promise<void>;
}

export async function startNastyServer(): Promise<NastyServer> {
  const files = new Map<string, ServedFile>();
  const ranges: (string | null)[] = [];
  const server: Server = createServer((request, response) => {
    ranges.push(request.headers.range ?? null);
    const file = files.get((request.url ?? '').slice(1));
    if (!file) return void response.writeHead(404).end();
    serve(file, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: (name) => `http://127.0.0.1:${port}/${name}`,
    files,
    ranges,
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

function serve(
  { content, etag, faults, arrived }: ServedFile,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const fault = faults.shift();
  if (fault && 'silent' in fault) return;
  if (fault && 'status' in fault) return void response.writeHead(fault.status).end('no');
  const asked = /^bytes=(\d+)-$/.exec(request.headers.range ?? '');
  const current = request.headers['if-range'] === etag;
  const partial = asked && current && !(fault && 'noRange' in fault);
  const start = partial ? Number(asked[1]) + (fault && 'shifted' in fault ? fault.shifted : 0) : 0;
  if (start >= content.length && partial) return void response.writeHead(416).end();
  const body = content.subarray(start);
  const length = fault && 'announce' in fault ? fault.announce : body.length;
  response.writeHead(partial ? 206 : 200, {
    'content-length': length,
    ...(etag === null ? {} : { etag }),
    ...(partial ? { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` } : {}),
  });
  if (fault && 'drop' in fault) {
    response.write(body.subarray(0, fault.drop));
    void until(() => arrived?.(start + fault.drop) ?? true, 5000).then(() => response.destroy());
  } else if (length < body.length) {
    // Past its own announcement: what Node would refuse to send.
    response.write(body.subarray(0, length));
    response.socket?.write(body.subarray(length), () => response.destroy());
  } else if (length > body.length) {
    response.write(body);
    void until(() => arrived?.(content.length) ?? true, 5000).then(() => response.destroy());
  } else response.end(body);
}
