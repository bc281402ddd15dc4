/**
 * Electron as far as the app uses it, where its binary cannot be had: a window is a page of a real browser with the built preload
 * injected, a utility process is a forked Node process, and app://studio is http://studio.test. What the app asks for is recorded.
 */
import { fork } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Browser, chromium, type Page, type Request as PageRequest } from 'playwright-core';

const root = fileURLToPath(new URL('../..', import.meta.url));
const fakeOrigin = 'http://studio.test';
const toApp = (url: string) => url.replace(fakeOrigin, 'app://studio');
const toFake = (url: string) => url.replace('app://studio', fakeOrigin);

/** Everything the app did that a system would notice. */
export const records = {
  webPreferences: null as unknown,
  schemes: [] as unknown[],
  requests: [] as { url: string; cancelled: boolean }[],
  sent: [] as { channel: string; payload: unknown }[],
  progress: [] as number[],
  wakeLocks: 0,
  wakeLocksHeld: 0,
  notifications: [] as { title: string; body: string }[],
  tray: [] as string[],
  menu: [] as unknown[],
  openedOutside: [] as string[],
  errors: [] as string[],
  crashReporter: null as unknown,
  sandboxed: false,
};

export const handlers = {
  protocol: undefined as ((request: Request) => Promise<Response>) | undefined,
  windowOpen: undefined as ((details: { url: string }) => { action: string }) | undefined,
  permissionRequest: undefined as
    ((contents: unknown, permission: string, answer: (allowed: boolean) => void) => void) | undefined,
  permissionCheck: undefined as ((contents: unknown, permission: string) => boolean) | undefined,
  devicePermission: undefined as (() => boolean) | undefined,
  beforeRequest: undefined as
    ((details: { url: string }, answer: (result: { cancel: boolean }) => void) => void) | undefined,
};

export const live = { browser: undefined as Browser | undefined, page: undefined as Page | undefined };

class App extends EventEmitter {
  isPackaged = false;
  setName(): void {}
  enableSandbox(): void {
    records.sandboxed = true;
  }
  getVersion = () => '0.1.0';
  getAppPath = () => root;
  getPath(name: string): string {
    const folder = join(process.env['VMOBA_FAKE_FOLDER'] as string, name);
    mkdirSync(folder, { recursive: true });
    return folder;
  }
  requestSingleInstanceLock = () => true;
  whenReady = () => Promise.resolve();
  quit(): void {
    let prevented = false;
    this.emit('before-quit', { preventDefault: () => (prevented = true) });
    if (!prevented) this.exit(0);
  }
  exit(code: number): void {
    void Promise.resolve(live.browser?.close()).finally(() => process.exit(code));
  }
}
export const app = new App();

export const ipcMain = new EventEmitter();

class Port extends EventEmitter {
  other: Port | undefined;
  /** For the end that went to the page. */
  toPage: ((data: Uint8Array) => void) | undefined;
  postMessage(data: Uint8Array): void {
    if (this.other?.toPage) this.other.toPage(data);
    else this.other?.emit('message', { data });
  }
  start(): void {}
  close(): void {}
}
export class MessageChannelMain {
  port1 = new Port();
  port2 = new Port();
  constructor() {
    this.port1.other = this.port2;
    this.port2.other = this.port1;
  }
}

const ports = new Map<number, Port>();

function pageFrame(page: Page) {
  return {
    parent: null,
    get url() {
      return toApp(page.url());
    },
    postMessage(channel: string, payload: unknown, transferred: Port[]) {
      const id = ports.size + 1;
      const port = transferred[0] as Port;
      ports.set(id, port);
      port.toPage = (data) =>
        void page
          .evaluate(`fakeElectron.fromPort(${id}, ${JSON.stringify(Buffer.from(data).toString('base64'))})`)
          .catch(() => {}); // the page is being closed
      void page.evaluate(`fakeElectron.deliver(${JSON.stringify(channel)}, ${JSON.stringify(payload)}, ${id})`);
    },
  };
}

const inPage = (preload: string) => `{
  const listeners = new Map(), ports = new Map();
  const text = (bytes) => { let all = ''; for (const byte of bytes) all += String.fromCharCode(byte); return btoa(all); };
  window.fakeElectron = {
    deliver(channel, payload, portId) {
      const event = { ports: [] };
      if (portId) {
        const { port1, port2 } = new MessageChannel();
        ports.set(portId, port1);
        port1.onmessage = ({ data }) => fakePortSend(portId, text(data));
        event.ports = [port2];
      }
      for (const listener of listeners.get(channel) ?? []) listener(event, payload);
    },
    fromPort: (id, data) => ports.get(id).postMessage(Uint8Array.from(atob(data), (c) => c.charCodeAt(0))),
  };
  const electron = {
    contextBridge: { exposeInMainWorld: (name, value) => { window[name] = value; } },
    ipcRenderer: {
      send: (...args) => fakeIpcSend(...args),
      on: (channel, listener) => listeners.set(channel, [...(listeners.get(channel) ?? []), listener]),
      off: (channel, listener) => listeners.set(channel, listeners.get(channel).filter((one) => one !== listener)),
    },
    webUtils: { getPathForFile: (file) => '/dropped/' + file.name },
  };
  (function (require) { ${preload}
  })((name) => { if (name !== 'electron') throw new Error('a sandboxed preload has no ' + name); return electron; });
}`;

export class BrowserWindow extends EventEmitter {
  webContents: EventEmitter;
  readonly #preload: string;

  constructor(options: { webPreferences: { preload: string } }) {
    super();
    const { preload, ...preferences } = options.webPreferences;
    records.webPreferences = { ...preferences, preload: preload.slice(root.length) };
    this.#preload = readFileSync(preload, 'utf8');
    this.webContents = Object.assign(new EventEmitter(), {
      setWindowOpenHandler: (handler: typeof handlers.windowOpen) => (handlers.windowOpen = handler),
      getURL: () => toApp(live.page?.url() ?? ''),
      send: (channel: string, payload: unknown) => {
        records.sent.push({ channel, payload });
        void live.page?.evaluate(`fakeElectron.deliver(${JSON.stringify(channel)}, ${JSON.stringify(payload)})`);
      },
      reload: () => void live.page?.reload(),
    });
    app.emit('web-contents-created', {}, this.webContents);
  }

  async loadURL(url: string): Promise<void> {
    live.browser = await chromium.launch({
      executablePath: process.env['CHROMIUM'] ?? '/usr/bin/chromium',
      // The app's scheme counts as secure; so must what stands for it.
      args: ['--no-sandbox', `--unsafely-treat-insecure-origin-as-secure=${fakeOrigin}`],
    });
    const page = await live.browser.newPage();
    live.page = page;
    await page.exposeFunction('fakeIpcSend', (channel: string) =>
      ipcMain.emit(channel, { senderFrame: pageFrame(page) }),
    );
    await page.exposeFunction('fakePortSend', (id: number, data: string) =>
      ports.get(id)?.other?.emit('message', { data: new Uint8Array(Buffer.from(data, 'base64')) }),
    );
    await page.addInitScript(inPage(this.#preload));
    await page.route('**/*', async (route) => {
      const request = route.request();
      const cancelled = isCancelled(toApp(request.url()));
      records.requests.push({ url: toApp(request.url()), cancelled });
      if (cancelled || !handlers.protocol) return route.abort();
      const answer = await handlers.protocol(appRequest(request));
      const body = Buffer.from(await answer.arrayBuffer());
      await route.fulfill({ status: answer.status, headers: Object.fromEntries(answer.headers), body });
    });
    await page.goto(toFake(url));
    this.emit('ready-to-show');
  }

  setProgressBar(fraction: number): void {
    records.progress.push(fraction);
  }
  isDestroyed = () => false;
  isMinimized = () => false;
  isMaximized = () => false;
  isFocused = () => false;
  getNormalBounds = () => ({ x: 10, y: 10, width: 1000, height: 700 });
  maximize(): void {}
  show(): void {}
  hide(): void {}
  focus(): void {}
  restore(): void {}
}

const appRequest = (request: PageRequest) =>
  new Request(toApp(request.url()), { method: request.method(), headers: request.headers() });

export function isCancelled(url: string): boolean {
  let cancelled = false;
  handlers.beforeRequest?.({ url }, ({ cancel }) => (cancelled = cancel));
  return cancelled;
}

export const utilityProcess = {
  fork(entry: string, args: string[], { env }: { env: NodeJS.ProcessEnv }) {
    const child = fork(entry, args, {
      env,
      serialization: 'advanced',
      stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
      execArgv: [],
    });
    const handle = Object.assign(new EventEmitter(), {
      pid: child.pid,
      stderr: child.stderr,
      postMessage: (message: object) => child.connected && child.send(message),
    });
    for (const event of ['message', 'exit', 'spawn']) child.on(event, (value: unknown) => handle.emit(event, value));
    return handle;
  },
};

export const protocol = {
  registerSchemesAsPrivileged: (schemes: unknown[]) => records.schemes.push(...schemes),
  handle: (_scheme: string, handler: typeof handlers.protocol) => (handlers.protocol = handler),
};
export const session = {
  defaultSession: {
    setPermissionRequestHandler: (handler: typeof handlers.permissionRequest) => (handlers.permissionRequest = handler),
    setPermissionCheckHandler: (handler: typeof handlers.permissionCheck) => (handlers.permissionCheck = handler),
    setDevicePermissionHandler: (handler: typeof handlers.devicePermission) => (handlers.devicePermission = handler),
    webRequest: { onBeforeRequest: (handler: typeof handlers.beforeRequest) => (handlers.beforeRequest = handler) },
  },
};
export const Menu = {
  buildFromTemplate: (template: unknown[]) => template,
  setApplicationMenu: (menu: unknown[]) => (records.menu = JSON.parse(JSON.stringify(menu)) as unknown[]),
};
export class Tray extends EventEmitter {
  setToolTip(text: string): void {
    records.tray.push(text);
  }
  setContextMenu(): void {}
  destroy(): void {}
}
export const nativeImage = { createFromPath: (path: string) => ({ resize: () => readFileSync(path) }) };
export class Notification extends EventEmitter {
  static isSupported = () => true;
  readonly #options: { title: string; body: string };
  constructor(options: { title: string; body: string }) {
    super();
    this.#options = options;
  }
  show(): void {
    records.notifications.push(this.#options);
  }
}
export const powerSaveBlocker = {
  start: () => {
    records.wakeLocksHeld++;
    return ++records.wakeLocks;
  },
  stop: () => records.wakeLocksHeld--,
};
export const dialog = {
  showErrorBox: (title: string, text: string) => records.errors.push(`${title}: ${text}`),
  showMessageBox: async () => ({ response: 1 }),
  showOpenDialog: async () => ({ filePaths: [] }),
};
export const shell = {
  showItemInFolder: () => {},
  openExternal: async (url: string) => void records.openedOutside.push(url),
};
export const screen = { getAllDisplays: () => [{ workArea: { x: 0, y: 0, width: 1920, height: 1080 } }] };
export const crashReporter = { start: (options: unknown) => (records.crashReporter = options) };
export const net = { fetch };
