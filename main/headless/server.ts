/**
 * The studio over HTTP:
 *   GET /?token=…      signs a browser in: a cookie for the token, and off to /
 *   GET / and assets   the built interface
 *   GET /media/<id>    a clip or picture by its opaque id, ranges included
 *   GET /studio        WebSocket: the contract in binary messages
 * Everything but signing in needs the secret (see access.ts).
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import { type AddressInfo, isIPv6 } from 'node:net';
import { networkInterfaces, hostname } from 'node:os';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { WebSocketServer } from 'ws';
import { largestClientMessageBytes } from '../../contract/codec.ts';
import { StudioError } from '../../contract/errors.ts';
import { answerWithFile, type FileAnswer, type FileQuestion, notFound } from '../host/fileAnswer.ts';
import { pageHeaders } from '../host/pagePolicy.ts';
import type { Studio } from '../studio/studio.ts';
import { Access, type Refusal } from './access.ts';
import { limits, SenderLimits } from './limits.ts';
import { findPages, type Page } from '../host/pages.ts';
import { closeCodes, serveSocket } from './socket.ts';

export interface ServerOptions {
  studio: Studio;
  /** Address to listen on. */
  host?: string;
  /** 0: any free one. */
  port?: number;
  /** Made anew unless given. */
  token?: string | undefined;
  /** Names beside the obvious ones by which browsers may call this host. */
  allowHosts?: readonly string[];
  /** The built interface; null serves none. */
  rendererFolder?: string | null;
}

export interface RunningServer {
  /** Where a browser signs in and clients connect, token included. */
  url: string;
  port: number;
  /** How many interface files are served: 0 where it is not built. */
  pages: number;
  /** Says good-bye to every client and releases the port. */
  close(): Promise<void>;
}

/** Errors: bad-request for an address or port that cannot be had. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { studio, host = '127.0.0.1', port = 0 } = options;
  const server = createServer({
    maxHeaderSize: 16 * 1024,
    headersTimeout: 10_000,
    requestTimeout: 30_000,
    keepAliveTimeout: 10_000,
    connectionsCheckingInterval: 5_000,
  });
  server.maxConnections = limits.connections;
  await listen(server, host, port);
  const actual = (server.address() as AddressInfo).port;
  const access = new Access({
    token: options.token,
    port: actual,
    hostNames: namesOf(host, options.allowHosts ?? []),
  });
  const door = new HttpHost(studio, access, findPages(options.rendererFolder ?? null));
  server.on('request', (request, response) => void door.answer(request, response));
  server.on('upgrade', (request, socket, head) => door.upgrade(request, socket, head));
  server.on('clientError', (_, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
    else socket.destroy();
  });
  const shown = isUnspecified(host) ? '127.0.0.1' : host;
  return {
    url: `http://${isIPv6(shown) ? `[${shown}]` : shown}:${actual}/?token=${access.token}`,
    port: actual,
    pages: door.pages.size,
    async close() {
      door.close();
      const closed = new Promise((resolve) => server.close(resolve));
      // Downloads under way and idle connections would hold it open; sockets get a moment to take the last word.
      const timer = setTimeout(() => server.closeAllConnections(), 500);
      server.closeIdleConnections();
      await closed;
      clearTimeout(timer);
    },
  };
}

class HttpHost {
  readonly pages: ReadonlyMap<string, Page>;
  readonly #studio: Studio;
  readonly #access: Access;
  readonly #strangers = new SenderLimits(limits.strangers);
  readonly #requests = limits.requests();
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: largestClientMessageBytes,
    perMessageDeflate: false,
    clientTracking: true,
  });
  #nextConnection = 1;

  constructor(studio: Studio, access: Access, pages: ReadonlyMap<string, Page>) {
    this.#studio = studio;
    this.#access = access;
    this.pages = pages;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const url = targetOf(request);
      const sender = url && this.#access.refuseSender(request.headers);
      if (!url || sender) return this.#refuse(request, response, sender ?? badTarget);
      const { method } = request;
      if (method !== 'GET' && method !== 'HEAD') return refuseMethod(response);
      const token = url.pathname === '/' ? url.searchParams.get('token') : null;
      if (token !== null && this.#access.isToken(token)) return signIn(response, this.#access.cookie);
      const secret = token === null ? this.#access.refuseSecret(request.headers, false) : wrongToken;
      if (secret) return this.#refuse(request, response, secret);
      if (!this.#requests.tryTake()) return tooMany(response);
      if (url.pathname === '/' && this.pages.size === 0) return answerText(response, 503, notBuilt);
      await send(response, await this.#file(url.pathname, questionOf(request, method)));
    } catch {
      // The client went away in the middle, or a file could not be read to its end: nothing more can be said to it.
      response.destroy();
    }
  }

  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy());
    const refusal =
      targetOf(request)?.pathname !== '/studio'
        ? badTarget
        : (this.#access.refuseSender(request.headers) ?? this.#access.refuseSecret(request.headers, true));
    if (refusal) {
      const status = this.#strangers.tryTake(senderOf(request)) ? refusal.status : 429;
      return refuseUpgrade(socket, status);
    }
    if (this.#sockets.clients.size >= limits.sockets) return refuseUpgrade(socket, 503);
    this.#sockets.handleUpgrade(request, socket, head, (client) =>
      serveSocket(this.#studio, client, `socket-${this.#nextConnection++}`),
    );
  }

  close(): void {
    for (const client of this.#sockets.clients) client.close(closeCodes.goingAway, 'closing');
    this.#sockets.close();
  }

  async #file(pathname: string, question: FileQuestion): Promise<FileAnswer> {
    const [, mediaId] = /^\/media\/([a-z]{3}_[0-9a-z.]{1,60})$/.exec(pathname) ?? [];
    if (mediaId !== undefined) {
      const path = await this.#studio.media(mediaId);
      return path === null ? notFound : answerWithFile(path, question, 'private, no-cache');
    }
    const page = this.pages.get(pathname);
    return page ? answerWithFile(page.path, question, page.cache) : notFound;
  }

  #refuse(request: IncomingMessage, response: ServerResponse, { status, reason }: Refusal): void {
    if (!this.#strangers.tryTake(senderOf(request))) return tooMany(response);
    answerText(response, status, reason);
  }
}

const badTarget: Refusal = { status: 400, reason: 'There is nothing of that name.' };
const notBuilt = 'The studio answers, but its interface is not built: run npm run build:app, then start it again.';
const wrongToken: Refusal = {
  status: 401,
  reason: 'This token is not valid, perhaps because the studio was started again: open the address it printed last.',
};

/** The path and query that were asked for; null for what is no path of this host. */
function targetOf({ url = '' }: IncomingMessage): URL | null {
  return url.startsWith('/') && !url.startsWith('//') && url.length <= 2048 && URL.canParse(url, 'http://host')
    ? new URL(url, 'http://host')
    : null;
}

const senderOf = (request: IncomingMessage) => request.socket.remoteAddress ?? '';

function questionOf({ headers }: IncomingMessage, method: FileQuestion['method']): FileQuestion {
  const single = (value: string | string[] | undefined) => (typeof value === 'string' ? value : null);
  return {
    method,
    range: single(headers.range),
    ifRange: single(headers['if-range']),
    ifNoneMatch: single(headers['if-none-match']),
  };
}

async function send(response: ServerResponse, { status, headers, body }: FileAnswer): Promise<void> {
  response.writeHead(status, headers);
  if (body) await pipeline(body, response);
  else response.end();
}

function signIn(response: ServerResponse, cookie: string): void {
  // Off the address that holds the token, so that it is neither kept in the history nor bookmarked.
  response.writeHead(303, { ...pageHeaders, location: '/', 'set-cookie': cookie, 'cache-control': 'no-store' }).end();
}

function answerText(response: ServerResponse, status: number, text: string, more: Record<string, string> = {}): void {
  const headers = { ...pageHeaders, 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store', ...more };
  // What such a client still sends is not read.
  response.writeHead(status, { ...headers, connection: 'close' }).end(`${text}\n`);
}

const refuseMethod = (response: ServerResponse) => answerText(response, 405, 'Only reading.', { allow: 'GET, HEAD' });
const tooMany = (response: ServerResponse) => answerText(response, 429, 'Too many requests.', { 'retry-after': '1' });

function refuseUpgrade(socket: Duplex, status: number): void {
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'EADDRINUSE'
          ? 'the port is in use: choose another with --port, or 0 for any'
          : error.code === 'EACCES'
            ? 'the system does not allow that port'
            : error.message;
      const message = `The studio cannot be served at ${host}:${port}: ${why}.`;
      reject(new StudioError('bad-request', message, { field: 'port', cause: error }));
    });
    server.listen(port, host, resolve);
  });
}

const isUnspecified = (host: string) => host === '0.0.0.0' || host === '::';

export const isLoopback = (host: string) => host === 'localhost' || host === '::1' || host.startsWith('127.');

/** Names by which this host may be called. */
function namesOf(host: string, allowed: readonly string[]): ReadonlySet<string> {
  const names = new Set(['localhost', '127.0.0.1', '[::1]', ...allowed.map((name) => name.toLowerCase())]);
  const add = (address: string) => names.add(isIPv6(address) ? `[${address}]` : address.toLowerCase());
  if (!isUnspecified(host)) return add(host);
  names.add(hostname().toLowerCase());
  for (const addresses of Object.values(networkInterfaces())) {
    for (const { address } of addresses ?? []) add(address);
  }
  return names;
}
