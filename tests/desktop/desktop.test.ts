/** The built app, main and preload, against a small stand-in for Electron: its page is a real browser's, its engine a real process. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { StudioClient } from '../../contract/client.ts';
import { methods } from '../../contract/index.ts';
import { faultyAddon } from '../support/engine.ts';
import { writeModelFolder } from '../support/models.ts';
import { until } from '../support/processes.ts';
import { connectTo } from '../support/served.ts';
import { settings } from '../support/studio.ts';
import type { records } from './fakeElectron.ts';
import type { Questions } from './runApp.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-desktop-'));
const library = join(folder, 'library');
const owner = join(library, 'owner.json');
let app: ChildProcess;
let client: StudioClient & AsyncDisposable;

let nextId = 1;
function ask<Name extends keyof Questions>(
  name: Name,
  ...args: Parameters<Questions[Name]>
): Promise<Awaited<ReturnType<Questions[Name]>>> {
  const id = nextId++;
  return new Promise((resolve, reject) => {
    const answered = (answer: { id: number; value?: unknown; error?: string }) => {
      if (answer.id !== id) return;
      app.off('message', answered);
      if (answer.error === undefined) resolve(answer.value as Awaited<ReturnType<Questions[Name]>>);
      else reject(new Error(answer.error));
    };
    app.on('message', answered);
    app.send({ id, name, args });
  });
}
const inPage = <Value>(script: string) => ask('evaluate', script) as Promise<Value>;
const recorded = () => ask('records') as Promise<typeof records>;

beforeAll(async () => {
  app = fork(fileURLToPath(new URL('./runApp.ts', import.meta.url)), [], {
    env: {
      ...process.env,
      VMOBA_FAKE_FOLDER: folder,
      VMOBA_LIBRARY: library,
      VMOBA_ADDON: faultyAddon,
      NODE_COMPILE_CACHE: join(folder, 'compiled'),
    },
    execArgv: [],
    serialization: 'advanced',
  });
  const loaded = await until(async () => app.exitCode !== null || (await ask('loaded')), 240_000);
  expect({ loaded, exitCode: app.exitCode }).toEqual({ loaded: true, exitCode: null });
  // The door of the command line: whoever finds the library open asks its owner.
  const { url } = JSON.parse(readFileSync(owner, 'utf8')) as { url: string };
  const { origin, searchParams } = new URL(url);
  client = await connectTo({ origin, token: searchParams.get('token') as string });
});
afterAll(() => {
  app.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

describe('the page is shut in', () => {
  test('sandboxed, isolated, without Node', async () => {
    const { webPreferences, sandboxed, schemes, crashReporter } = await recorded();
    expect(webPreferences).toEqual({
      preload: 'out/preload/preload.cjs',
      sandbox: true,
      contextIsolation: true,
      nodeIntegration: false,
      nodeIntegrationInWorker: false,
      nodeIntegrationInSubFrames: false,
      webSecurity: true,
      allowRunningInsecureContent: false,
      experimentalFeatures: false,
      webviewTag: false,
      navigateOnDragDrop: false,
      spellcheck: false,
    });
    expect({ sandboxed, crashReporter }).toEqual({ sandboxed: true, crashReporter: { uploadToServer: false } });
    expect(schemes).toEqual([
      {
        scheme: 'app',
        privileges: { standard: true, secure: true, supportFetchAPI: true, stream: true, codeCache: true },
      },
    ]);
    expect(await inPage('[typeof require, typeof process, typeof module]')).toEqual(Array(3).fill('undefined'));
    expect(await inPage('Object.keys(studioDesktop).sort()')).toEqual(['onCommand', 'onFileOpened', 'pathOf']);
  });

  test('a strict policy comes with every answer, and holds', async () => {
    const policy = await inPage<string>("fetch('/').then((answer) => answer.headers.get('content-security-policy'))");
    expect(policy).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self';/);
    expect(policy).not.toMatch(/unsafe|\*|https?:/);
    const violated = await inPage<string>(`new Promise((resolve) => {
      document.addEventListener('securitypolicyviolation', ({ effectiveDirective }) => resolve(effectiveDirective));
      const script = document.createElement('script');
      script.textContent = 'window.injected = true';
      document.head.append(script);
    })`);
    expect([violated, await inPage('window.injected ?? null')]).toEqual(['script-src-elem', null]);
  });

  test('nothing remote is asked for, and what would be is cancelled', async () => {
    const { requests } = await recorded();
    expect(requests.length).toBeGreaterThan(2);
    expect(requests.filter(({ url, cancelled }) => cancelled || !url.startsWith('app://studio/'))).toEqual([]);
    for (const url of [
      'https://example.org/',
      'http://127.0.0.1:80/',
      'file:///etc/passwd',
      'ws://localhost/',
      'nonsense',
    ])
      expect([url, await ask('cancelled', url)]).toEqual([url, true]);
    expect(await ask('cancelled', 'app://studio/assets/index.js')).toBe(false);
  });

  test('it goes nowhere else and opens no windows; known sites open in the browser', async () => {
    for (const event of ['will-navigate', 'will-redirect', 'will-frame-navigate']) {
      for (const url of [
        'https://huggingface.co/',
        'file:///etc/passwd',
        'app://other/',
        'javascript:alert(1)',
        'data:text/html,a',
      ])
        expect([event, url, await ask('navigation', event, url)]).toEqual([event, url, false]);
      expect(await ask('navigation', event, 'app://studio/')).toBe(true);
    }
    expect(await ask('navigation', 'will-attach-webview', 'app://studio/')).toBe(false);
    for (const url of [
      'https://huggingface.co/Wan-AI',
      'http://huggingface.co/',
      'https://huggingface.co.evil.example/',
      'https://user@huggingface.co/',
      'file:///etc/passwd',
    ])
      expect(await ask('windowOpen', url)).toEqual({ action: 'deny' });
    expect((await recorded()).openedOutside).toEqual(['https://huggingface.co/Wan-AI']);
  });

  test('permissions are denied, but for copying and filling the screen', async () => {
    for (const name of [
      'media',
      'geolocation',
      'notifications',
      'midi',
      'hid',
      'usb',
      'serial',
      'clipboard-read',
      'openExternal',
    ])
      expect([name, await ask('permission', name)]).toEqual([name, { requested: false, checked: false }]);
    for (const name of ['clipboard-sanitized-write', 'fullscreen'])
      expect([name, await ask('permission', name)]).toEqual([name, { requested: true, checked: true }]);
    expect(await ask('devicePermission')).toBe(false);
  });
});

describe('only the contract crosses', () => {
  test('one channel, for the page alone', async () => {
    expect(await ask('ipcChannels')).toEqual(['studio:connect']);
    expect(await ask('connectFrom', 'https://example.org/', false)).toBe(false);
    expect(await ask('connectFrom', 'app://other/', false)).toBe(false);
    expect(await ask('connectFrom', 'app://studio/', true)).toBe(false);
    expect(await ask('connectFrom', 'app://studio/', false)).toBe(true);
  });

  test('over its port every method of the contract answers, and nothing else', async () => {
    const names = [...Object.keys(methods), 'studio.eval', 'constructor', 'fs.readFile'];
    // What is no input of any method, so that nothing is done: known methods say what is wrong with it.
    const answers = await inPage<Record<string, string>>(`new Promise((resolve) => {
      const names = ${JSON.stringify(names)}, answers = {};
      // A page that is just connecting may take this port for its own: then once more.
      const ask = () => {
        if (Object.keys(answers).length === names.length) return;
        setTimeout(ask, 5000);
        addEventListener('message', function take({ data, ports: [port] }) {
          if (data !== 'studio-port') return;
          removeEventListener('message', take);
          port.onmessage = ({ data }) => {
            const length = new DataView(data.buffer, data.byteOffset).getUint32(0, true);
            const { message } = JSON.parse(new TextDecoder().decode(data.subarray(4, 4 + length)));
            if (message.kind !== 'event') answers[names[message.id]] = message.error?.message ?? message.kind;
            if (Object.keys(answers).length === names.length) resolve(answers);
          };
          names.forEach((method, id) => {
            const text = JSON.stringify({ message: { kind: 'call', id, method, input: { noSuchInput: true } }, attachments: [] });
            const header = new TextEncoder().encode(text), bytes = new Uint8Array(4 + header.length);
            new DataView(bytes.buffer).setUint32(0, header.length, true);
            bytes.set(header, 4);
            port.postMessage(bytes);
          });
        });
        postMessage('studio-port-please', location.origin);
      };
      ask();
    })`);
    const unknown = Object.keys(answers).filter((name) => answers[name]?.startsWith('There is no method'));
    expect(unknown.sort()).toEqual(['constructor', 'fs.readFile', 'studio.eval']);
  });
});

test('a render runs in a process of its own; the desktop takes part; the clip plays by its opaque id', async () => {
  await client.call('models.import', { path: writeModelFolder(join(folder, 'model')) });
  const { id } = await client.call('renders.create', { settings: settings({ prompt: 'a slow ball' }) });
  expect(await until(async () => (await client.call('renders.get', { id })).state === 'done', 60_000)).toBe(true);
  const { takeId } = await client.call('renders.get', { id });
  const { clip } = await client.call('takes.get', { id: takeId as string });
  expect(await until(async () => (await recorded()).wakeLocksHeld === 0, 10_000)).toBe(true);
  const { wakeLocks, notifications, progress, tray, errors } = await recorded();
  expect({ wakeLocks, notifications, last: progress.at(-1), errors }).toEqual({
    wakeLocks: 1,
    notifications: [{ title: 'Your clip is ready', body: 'a slow ball' }],
    last: -1,
    errors: [],
  });
  expect(progress.some((fraction) => fraction > 0 && fraction <= 1)).toBe(true);
  expect(tray.some((words) => /Rendering, \d+ %/.test(words))).toBe(true);

  const answers = await inPage(`Promise.all(['bytes=0-3', 'bytes=4-7', 'bytes=0-1,3-4'].map(async (range) => {
    const answer = await fetch('/media/${clip.mediaId}', { headers: { range } });
    return [answer.status, answer.headers.get('content-type'), new TextDecoder().decode(await answer.arrayBuffer())];
  }))`);
  expect(answers).toEqual([
    [206, 'video/mp4', '\0\0\0 '],
    [206, 'video/mp4', 'ftyp'],
    [416, 'video/mp4', ''],
  ]);
  for (const path of ['/media/tak_..%2f..%2flibrary.db', '/../package.json', '/media/lib_library.db', '/owner.json'])
    expect([path, await inPage(`fetch('${path}').then(({ status }) => status)`)]).toEqual([path, 404]);
});

test('a clip opened from the system is handed over as an upload; its settings can be read', async () => {
  const takes = join(library, 'takes');
  const name = readdirSync(takes).find((file) => file.endsWith('.mp4')) as string;
  await ask('secondInstance', join(takes, name));
  const told = async () => (await recorded()).sent.find(({ channel }) => channel === 'studio:file-opened');
  expect(await until(async () => (await told()) !== undefined, 20_000)).toBe(true);
  expect((await told())?.payload).toMatchObject({
    uploadId: expect.stringMatching(/^upl_/),
    name,
  });
});

test('it ends in order: the library is let go of, no process stays', async () => {
  const exited = once(app, 'exit');
  void ask('quit').catch(() => {}); // no answer from a process that ends
  expect(await exited).toEqual([0, null]);
  expect(existsSync(owner)).toBe(false);
});
