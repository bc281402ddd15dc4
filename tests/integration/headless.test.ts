/** Attacks on the headless host: nothing is served to whom it should not be, and the process lives on. */
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { WebSocket } from 'ws';
import { encodeMessage, largestClientMessageBytes } from '../../contract/codec.ts';
import { endStartedClis } from '../support/cli.ts';
import { connectTo, openSocket, type Served, startServe } from '../support/served.ts';
import { faultyAddon } from '../support/engine.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-headless-'));
const secretText = 'a file of the person that no client may see';
const clip = Buffer.from(Array.from({ length: 1000 }, (_, at) => at % 251));
let host: Served;

beforeAll(async () => {
  writeFileSync(join(folder, 'secret.txt'), secretText);
  const gallery = join(folder, 'gallery');
  mkdirSync(gallery);
  writeFileSync(join(gallery, 'gallery.json'), JSON.stringify([{ prompt: 'a ball', clip: 'ball.mp4' }]));
  writeFileSync(join(gallery, 'ball.mp4'), clip);
  host = await startServe(join(folder, 'library'), [], { VMOBA_ADDON: faultyAddon, VMOBA_GALLERY: gallery });
});
afterAll(() => {
  endStartedClis();
  rmSync(folder, { recursive: true, force: true });
});

/** Every attack is followed by an honest call. */
afterEach(async () => {
  await using client = await connectTo(host);
  expect(await client.call('queue.status')).toMatchObject({ mode: 'running' });
  expect(host.cli.child.exitCode).toBeNull();
});

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: Buffer;
}

function ask(path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { host: '127.0.0.1', port: host.port, path, method, headers, agent: false },
      (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) }),
        );
      },
    );
    request.on('error', reject);
    request.end();
  });
}

const bearer = () => ({ authorization: `Bearer ${host.token}` });
const ourOrigin = () => ({ origin: host.origin });

/** What a browser has after opening the printed address. */
async function signedIn(): Promise<{ cookie: string }> {
  const { status, headers } = await ask(`/?token=${host.token}`);
  expect({ status, location: headers['location'] }).toEqual({ status: 303, location: '/' });
  const cookie = String(headers['set-cookie']);
  expect(cookie).toMatch(/; HttpOnly; SameSite=Strict; Path=\/$/);
  expect(cookie).not.toContain(host.token);
  return { cookie: cookie.split(';')[0] as string };
}

const refusedWith = (status: string, attempt: Promise<WebSocket>) =>
  expect(attempt.then((socket) => socket.terminate())).rejects.toThrow(status);

describe('without the secret nothing is served', () => {
  test.each(['/', '/media/gal_0.clip', '/index.html', '/nothing', '/studio'])('no token: GET %s', async (path) => {
    expect(await ask(path)).toMatchObject({ status: 401 });
  });

  test('wrong tokens, in the address, as bearer, as cookie, cut off, made longer', async () => {
    const { token, port } = host;
    const statuses = await Promise.all([
      ask('/?token=wrong').then((answer) => answer.status),
      ask(`/?token=${token.slice(0, -1)}`).then((answer) => answer.status),
      ask(`/?token=${token}x`).then((answer) => answer.status),
      ask('/?token=').then((answer) => answer.status),
      ask('/', { authorization: `Bearer ${token}x` }).then((answer) => answer.status),
      ask('/', { authorization: `Basic ${token}` }).then((answer) => answer.status),
      ask('/', { cookie: `vmoba-studio-${port}=${token}` }).then((answer) => answer.status),
      ask(`/media/gal_0.clip?token=${token}`).then((answer) => answer.status),
    ]);
    expect(new Set(statuses)).toEqual(new Set([401]));
    await refusedWith('401', openSocket(host.origin, {}));
    await refusedWith('401', openSocket(host.origin, { authorization: 'Bearer wrong' }));
    await refusedWith('401', openSocket(host.origin, {}, `/studio?token=${token}`));
  });

  test('with the token a browser is signed in, and its page is told to talk to nobody else', async () => {
    const cookie = await signedIn();
    const { status, headers, body } = await ask('/media/gal_0.clip', cookie);
    expect({ status, body }).toEqual({ status: 200, body: clip });
    expect(headers).toMatchObject({
      'content-security-policy': expect.stringMatching(/^default-src 'none'; script-src 'self'; /),
      'x-content-type-options': 'nosniff',
      'cross-origin-resource-policy': 'same-origin',
      'referrer-policy': 'no-referrer',
    });
    expect(String(headers['content-security-policy'])).not.toMatch(/unsafe|\*|https?:/);
    (await openSocket(host.origin, { ...cookie, ...ourOrigin() })).terminate();
  });
});

describe('a browser on another page is refused, also with the cookie', () => {
  test.each(['http://evil.example', 'null', 'https://127.0.0.1', 'http://127.0.0.1:1'])('Origin %s', async (origin) => {
    const cookie = await signedIn();
    expect(await ask('/media/gal_0.clip', { ...cookie, origin })).toMatchObject({ status: 403 });
    await refusedWith('403', openSocket(host.origin, { ...cookie, origin }));
    await refusedWith('403', openSocket(host.origin, { ...bearer(), origin }));
  });

  test('a cookie opens no socket without an Origin', async () => {
    await refusedWith('403', openSocket(host.origin, await signedIn()));
  });

  test('pictures and scripts that other pages embed', async () => {
    const cookie = await signedIn();
    for (const site of ['cross-site', 'same-site']) {
      const embedding = { ...cookie, 'sec-fetch-site': site, 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'video' };
      expect(await ask('/media/gal_0.clip', embedding)).toMatchObject({ status: 403 });
    }
  });

  test.each([
    'evil.example:PORT',
    '127.0.0.1.evil.example:PORT',
    '127.0.0.1',
    '127.0.0.1:1',
    'evil@127.0.0.1:PORT',
    'a, b',
  ])('a name that was rebound to this address: Host %s', async (name) => {
    const named = { ...bearer(), host: name.replace('PORT', String(host.port)) };
    expect(await ask('/media/gal_0.clip', named)).toMatchObject({ status: 421 });
    await refusedWith('421', openSocket(host.origin, named));
  });

  test('the names of the loopback address are its own', async () => {
    for (const name of ['localhost', '[::1]', 'LOCALHOST']) {
      const named = { ...bearer(), host: `${name}:${host.port}` };
      expect(await ask('/media/gal_0.clip', named)).toMatchObject({ status: 200 });
    }
  });

  test.each(['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE'])('%s', async (method) => {
    expect(await ask('/media/gal_0.clip', bearer(), method)).toMatchObject({ status: 405 });
  });
});

test.each([
  '/media/../secret.txt',
  '/media/%2e%2e%2fsecret.txt',
  '/media/..%2f..%2fsecret.txt',
  '/media/tak_..%2f..%2fsecret.txt',
  '/media/tak_../../secret.txt',
  '/media/gal_0.clip/../../secret.txt',
  '/media/gal_0.clip%00.txt',
  '/media/upl_00000000000000000000.file',
  '/media/gal_9.clip',
  '/media/gal_-1.clip',
  '/media/lib_library.db',
  '/../secret.txt',
  '/..%5csecret.txt',
  '/%2e%2e/secret.txt',
  '//127.0.0.1/secret.txt',
  'http://127.0.0.1/secret.txt',
  '/assets/../../package.json',
  '/owner.json',
])('a path leads nowhere: %s', async (path) => {
  const { status, body } = await ask(path, bearer());
  expect([400, 404]).toContain(status);
  expect(body.toString()).not.toContain(secretText);
});

describe('ranges of a clip', () => {
  const part = (range: string, more: Record<string, string> = {}) =>
    ask('/media/gal_0.clip', { ...bearer(), range, ...more });

  test.each([
    ['bytes=0-0', 0, 0],
    ['bytes=990-', 990, 999],
    ['bytes=-10', 990, 999],
    ['bytes=-5000', 0, 999],
    ['bytes=500-100000', 500, 999],
  ])('%s', async (range, start, end) => {
    const { status, headers, body } = await part(range);
    expect({ status, range: headers['content-range'], body }).toEqual({
      status: 206,
      range: `bytes ${start}-${end}/1000`,
      body: clip.subarray(start, end + 1),
    });
  });

  test.each([
    'bytes=1000-',
    'bytes=5-4',
    'bytes=-0',
    'bytes=-',
    'bytes=a-b',
    'bytes=0-1,2-3',
    'bytes=0-,0-,0-,0-,0-,0-,0-,0-',
    'bytes=99999999999999999999999999-',
    'bytes=0x10-0x20',
    'bytes=1e1-2e1',
  ])('refused: %s', async (range) => {
    const { status, headers, body } = await part(range);
    expect({ status, range: headers['content-range'], bytes: body.length }).toEqual({
      status: 416,
      range: 'bytes */1000',
      bytes: 0,
    });
  });

  test('an unknown unit means the whole; so does a range of what has changed; what is known is not sent again', async () => {
    expect(await part('lines=1-2')).toMatchObject({ status: 200, body: clip });
    expect(await part('bytes=0-9', { 'if-range': '"other"' })).toMatchObject({ status: 200, body: clip });
    const { headers } = await part('bytes=0-9');
    const etag = String(headers['etag']);
    expect(await part('bytes=0-9', { 'if-range': etag })).toMatchObject({ status: 206 });
    expect(await ask('/media/gal_0.clip', { ...bearer(), 'if-none-match': etag })).toMatchObject({ status: 304 });
    expect(await ask('/media/gal_0.clip', bearer(), 'HEAD')).toMatchObject({
      status: 200,
      headers: { 'content-length': '1000' },
      body: Buffer.alloc(0),
    });
  });
});

describe('sockets that do not speak the contract', () => {
  const call = (method: string, input: unknown, id = 1) => encodeMessage({ kind: 'call', id, method, input });
  const open = () => openSocket(host.origin, bearer());

  /** Sends, and tells the code the host closes with. */
  async function closedAfter(data: Buffer | Uint8Array | string): Promise<number> {
    const socket = await open();
    socket.on('error', () => {});
    const closed = once(socket, 'close');
    socket.send(data);
    return Number((await closed)[0]);
  }

  const header = (text: string, length = text.length) => {
    const bytes = Buffer.alloc(4 + text.length);
    bytes.writeUInt32LE(length);
    bytes.write(text, 4);
    return bytes;
  };

  test.each([
    ['text', '{"kind":"call"}', 1003],
    ['nothing', Buffer.alloc(0), 1008],
    ['three bytes', Buffer.from([1, 2, 3]), 1008],
    ['a header longer than the message', header('{}', 0xffff_ffff), 1008],
    ['a header that is no JSON', header('{{{'), 1008],
    ['a header that is no UTF-8', Buffer.concat([Buffer.from([2, 0, 0, 0]), Buffer.from([0xff, 0xfe])]), 1008],
    ['deeply nested JSON', header('['.repeat(500_000)), 1008],
    ['another kind of message', header('{"message":{"kind":"event","name":"a"},"attachments":[]}'), 1008],
    [
      'an attachment that reaches for prototypes',
      header('{"message":{},"attachments":[{"path":["__proto__","a"],"bytes":0}]}'),
      1008,
    ],
    [
      'an attachment of bytes that are not there',
      header('{"message":{"a":null},"attachments":[{"path":["a"],"bytes":9e15}]}'),
      1008,
    ],
  ])('%s ends the connection', async (_, data, code) => {
    expect(await closedAfter(data)).toBe(code);
  });

  test('more than a message may hold ends the connection', async () => {
    // 1006: cut off with bytes still under way, the sender may never read the 1009 that was sent.
    expect([1009, 1006]).toContain(await closedAfter(Buffer.alloc(largestClientMessageBytes + 1)));
  });

  test('frames that are no WebSocket frames end it too', async () => {
    const key = 'dGhlIHNhbXBsZSBub25jZQ==';
    for (const frame of [
      Buffer.from([0x82, 0x05, 1, 2, 3, 4, 5]), // not masked
      Buffer.from([0xf2, 0x80, 0, 0, 0, 0]), // reserved bits
      Buffer.from([0x8b, 0x80, 0, 0, 0, 0]), // unknown opcode
      Buffer.from([0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), // 2^63 bytes
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    ]) {
      const socket = connect(host.port, '127.0.0.1');
      socket.write(
        `GET /studio HTTP/1.1\r\nHost: 127.0.0.1:${host.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
          `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\nAuthorization: Bearer ${host.token}\r\n\r\n`,
      );
      await once(socket, 'data');
      socket.write(frame);
      socket.resume();
      await once(socket, 'close');
    }
  });

  test('an unknown method and bad input are errors, not ends', async () => {
    await using client = await connectTo(host);
    const wild = client.call.bind(client) as unknown as (name: string, input: unknown) => Promise<unknown>;
    await expect(wild('constructor', {})).rejects.toMatchObject({ code: 'bad-request', field: 'method' });
    await expect(wild('toString', {})).rejects.toMatchObject({ code: 'bad-request' });
    await expect(wild('renders.get', { id: '../../secret.txt' })).rejects.toMatchObject({
      code: 'bad-request',
      field: 'id',
    });
    await expect(wild('renders.get', { id: 'rnd_00000000000000000000' })).rejects.toMatchObject({ code: 'not-found' });
    await expect(wild('takes.list', { limit: 1e9 })).rejects.toMatchObject({ code: 'bad-request', field: 'limit' });
    await expect(wild('host.reveal', { mediaId: 'gal_0.clip' })).rejects.toMatchObject({ code: 'unsupported' });
  });

  test('requests that are no HTTP are answered with 400 and closed', async () => {
    for (const text of [
      'nonsense\r\n\r\n',
      'GET / HTTP/1.1\r\nA: b\r\n\r\n',
      `GET / HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`,
      '\0\0\0\r\n\r\n',
    ]) {
      const socket = connect(host.port, '127.0.0.1');
      const parts: Buffer[] = [];
      socket.on('data', (part: Buffer) => parts.push(part));
      socket.on('error', () => {}); // cut off while still sending
      socket.write(text);
      await once(socket, 'close');
      expect(Buffer.concat(parts).toString().split('\r\n')[0]).toMatch(/^$|^HTTP\/1\.1 4\d\d /);
    }
  });

  test('a flood of calls over one socket is paced: others are answered meanwhile', async () => {
    const flood = await open();
    let answers = 0;
    flood.on('message', () => answers++);
    for (let id = 0; id < 20_000; id++) flood.send(call('queue.status', {}, id));
    await using client = await connectTo(host);
    for (let turn = 0; turn < 5; turn++) expect(await client.call('queue.status')).toMatchObject({ queued: 0 });
    expect(answers).toBeLessThan(20_000);
    flood.terminate();
  });

  test('no more sockets than the host means to have', async () => {
    const sockets: WebSocket[] = [];
    const opened = async () => {
      for (;;) sockets.push(await open());
    };
    await expect(opened()).rejects.toThrow('503');
    expect(sockets.length).toBeLessThanOrEqual(64);
    expect(sockets.length).toBeGreaterThan(60); // sockets of the tests before may still be closing
    const closed = sockets.map((socket) => once(socket, 'close'));
    for (const socket of sockets) socket.close();
    await Promise.all(closed);
  });
});

test('10,000 requests without the secret, as fast as they go: none is served', async () => {
  const single = `GET /media/gal_0.clip HTTP/1.1\r\nHost: 127.0.0.1:${host.port}\r\n\r\n`;
  const statuses = new Map<string, number>();
  let served = false;
  let sent = 0;
  while (sent < 10_000) {
    const sockets = Array.from({ length: 50 }, async () => {
      const socket = connect(host.port, '127.0.0.1');
      let text = '';
      socket.setEncoding('latin1').on('data', (part: string) => (text += part));
      socket.on('error', () => {}); // cut off: that is the point
      const closed = once(socket, 'close');
      socket.write(single.repeat(20));
      sent += 20;
      await closed;
      for (const [status] of text.matchAll(/HTTP\/1\.1 \d+/g)) statuses.set(status, (statuses.get(status) ?? 0) + 1);
      served ||= text.includes(clip.subarray(0, 20).toString('latin1'));
    });
    await Promise.all(sockets);
  }
  expect(served).toBe(false);
  expect([...statuses.keys()].sort()).toEqual(['HTTP/1.1 401', 'HTTP/1.1 429']);
  // Who has the secret is let in all the same.
  expect(await ask('/media/gal_0.clip', bearer())).toMatchObject({ status: 200 });
});

test('it says good-bye to its clients, lets go of the library, and ends well', async () => {
  const other = await startServe(join(folder, 'other'), [], { VMOBA_ADDON: faultyAddon });
  const client = await connectTo(other);
  const reason = new Promise((resolve) => client.on('studio.closing', (event) => resolve(event.reason)));
  other.cli.child.kill('SIGTERM');
  expect(await reason).toBe('The host was stopped.');
  expect(await other.cli.result).toMatchObject({ code: 0 });
  await expect(client.call('queue.status')).rejects.toMatchObject({ code: 'disconnected' });
  const again = await startServe(join(folder, 'other'), [], { VMOBA_ADDON: faultyAddon });
  expect(again.token).not.toBe(other.token);
  again.cli.child.kill('SIGTERM');
  await again.cli.result;
});
