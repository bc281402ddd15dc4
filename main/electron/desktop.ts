/** The studio as a desktop app: its window, and everything of the system that follows what the studio does. */
import { join } from 'node:path';
import { app, type BrowserWindow, dialog, ipcMain, Menu, net, protocol, session, shell } from 'electron';
import type { StudioClient } from '../../contract/client.ts';
import { StudioError, toErrorShape } from '../../contract/errors.ts';
import { startServer, type RunningServer } from '../headless/server.ts';
import { connectInProcess } from '../host/memoryPipe.ts';
import { embeddedModel, galleryFolder, iconFile, rendererFolder } from '../host/resources.ts';
import { defaultLibraryFolder, libraryPaths } from '../studio/library/folder.ts';
import { readOwner } from '../studio/library/lock.ts';
import { Studio } from '../studio/studio.ts';
import { type Activity, followActivity } from './activity.ts';
import { developmentAddress, scheme } from './address.ts';
import { serveApp } from './appProtocol.ts';
import { channels } from './channels.ts';
import type { CrashLog } from './crashLog.ts';
import { guardPages, guardSession } from './guards.ts';
import { notifyOfEnd, showProgress, WakeLock } from './manners.ts';
import { menuTemplate } from './menu.ts';
import { clipEndings, type OpenedFile, uploadClip } from './openedFiles.ts';
import { openPagePorts, type PagePorts } from './pagePort.ts';
import { StudioTray } from './tray.ts';
import { newerVersion } from './updates.ts';
import { launchWithElectron } from './utilityLauncher.ts';
import { openWindow } from './window.ts';

/** Where a build finds out about newer ones; none until there are releases. */
const updateFeed: string | null = null;

/** A page that dies this often within a minute is not brought back. */
const mostReloads = 3;

export class Desktop {
  readonly #log: CrashLog;
  readonly #studio: Studio;
  /** The desktop's own line to the studio, for what it shows outside the page. */
  readonly #client: StudioClient;
  readonly #wakeLock = new WakeLock();
  readonly #development = developmentAddress(app.isPackaged);
  #window: BrowserWindow | undefined;
  #ports: PagePorts | undefined;
  #tray: StudioTray | undefined;
  #door: RunningServer | undefined;
  #activity: Activity = { renderId: null, fraction: 0, queued: 0, mode: 'running' };
  /** Clips that were opened before there was a page to tell. */
  #waitingFiles: OpenedFile[] = [];
  #pageReady = false;
  #closing: Promise<void> | undefined;
  #reloads: number[] = [];

  private constructor(studio: Studio, log: CrashLog) {
    this.#studio = studio;
    this.#log = log;
    this.#client = connectInProcess(studio, 'desktop');
  }

  /** Errors: those of opening a library. */
  static async start(log: CrashLog): Promise<Desktop> {
    const studio = await Studio.open({
      folder: defaultLibraryFolder(),
      version: app.getVersion(),
      host: { kind: 'desktop', reveal: async (path) => shell.showItemInFolder(path), choosePath },
      embeddedModel: embeddedModel(),
      galleryFolder: galleryFolder(),
      launch: launchWithElectron,
    });
    const desktop = new Desktop(studio, log);
    await desktop.#begin();
    return desktop;
  }

  /** Brings the window forward, a new one if need be. */
  show(): void {
    const window = this.#window;
    if (!window || window.isDestroyed()) return this.#openWindow();
    if (window.isMinimized()) window.restore();
    window.show();
    window.focus();
  }

  /** Takes a clip in; the page then shows its settings. */
  async openClip(path: string): Promise<void> {
    try {
      const file = await uploadClip(this.#client, path);
      if (this.#pageReady) this.#toPage(channels.fileOpened, file);
      else this.#waitingFiles.push(file);
      this.show();
    } catch (error) {
      dialog.showErrorBox('The clip cannot be opened', toErrorShape(error).message);
    }
  }

  /** Ends in order: the running render keeps its last step. */
  close(): Promise<void> {
    return (this.#closing ??= (async () => {
      this.#wakeLock.release();
      await this.#studio.close('The app is closing.');
      this.#ports?.close();
      await this.#door?.close();
      this.#tray?.destroy();
    })());
  }

  async #begin(): Promise<void> {
    guardSession(session.defaultSession, this.#development);
    protocol.handle(scheme, serveApp(this.#studio, rendererFolder()));
    this.#ports = openPagePorts(ipcMain, this.#studio, this.#development, () => this.#pageConnected());
    await this.#openDoor();
    this.#openTray();
    Menu.setApplicationMenu(
      Menu.buildFromTemplate(
        menuTemplate(process.platform, app.isPackaged, {
          command: (action) => this.#command(action),
          openClip: () => void this.#chooseClip(),
          openLogs: () => shell.showItemInFolder(this.#log.path),
          openHelp: () => void shell.openExternal('https://arxiv.org/abs/2506.23858'),
        }),
      ),
    );
    this.#openWindow();
    await followActivity(this.#client, {
      changed: (activity) => this.#follow(activity),
      ended: (render) => void this.#ended(render),
    });
    void this.#lookForUpdate();
  }

  #openWindow(): void {
    const window = openWindow({
      preload: join(app.getAppPath(), 'out', 'preload', 'preload.cjs'),
      icon: iconFile(),
      stateFile: join(app.getPath('userData'), 'window.json'),
      development: this.#development,
    });
    this.#window = window;
    window.on('close', (event) => {
      if (this.#closing || this.#activity.renderId === null || !this.#tray) return;
      // A render is worth more than a window: it goes on, and the tray says so.
      event.preventDefault();
      window.hide();
    });
    window.on('closed', () => (this.#pageReady = false));
    window.webContents.on('did-start-navigation', ({ isMainFrame, isSameDocument }) => {
      if (isMainFrame && !isSameDocument) this.#pageReady = false;
    });
    window.webContents.on('render-process-gone', (_, details) => this.#pageGone(window, details));
    window.on('unresponsive', () => this.#log.write('the page does not answer', window.webContents.getURL()));
  }

  #pageGone(window: BrowserWindow, details: { reason: string; exitCode: number }): void {
    this.#pageReady = false;
    if (details.reason === 'clean-exit') return;
    this.#log.write('the page ended', details);
    const now = Date.now();
    this.#reloads = [...this.#reloads.filter((at) => now - at < 60_000), now];
    if (this.#reloads.length <= mostReloads) window.webContents.reload();
    else dialog.showErrorBox('The window keeps failing', `What happened is in ${this.#log.path}. Renders go on.`);
  }

  #pageConnected(): void {
    this.#pageReady = true;
    for (const file of this.#waitingFiles.splice(0)) this.#toPage(channels.fileOpened, file);
  }

  #follow(activity: Activity): void {
    this.#activity = activity;
    this.#wakeLock.follow(activity);
    this.#tray?.follow(activity);
    if (this.#window && !this.#window.isDestroyed()) showProgress(this.#window, activity);
  }

  async #ended(render: Parameters<typeof notifyOfEnd>[0]): Promise<void> {
    const { notifyOnDone } = await this.#client.call('settings.get');
    if (!notifyOnDone || this.#window?.isFocused()) return;
    notifyOfEnd(render, () => {
      this.show();
      this.#command(render.state === 'done' ? 'library' : 'queue');
    });
  }

  /** Lets the command line in: it asks whoever has the library open. */
  async #openDoor(): Promise<void> {
    try {
      this.#door = await startServer({ studio: this.#studio });
      await this.#studio.announce(this.#door.url);
    } catch (error) {
      this.#log.write('no door for the command line', error);
    }
  }

  #openTray(): void {
    try {
      this.#tray = new StudioTray(iconFile(), {
        show: () => this.show(),
        pause: () => void this.#client.call('queue.pause').catch((error: unknown) => this.#log.write('pause', error)),
        resume: () =>
          void this.#client.call('queue.resume').catch((error: unknown) => this.#log.write('resume', error)),
        quit: () => app.quit(),
      });
    } catch (error) {
      this.#log.write('no tray', error); // some desktops have none; the window then closes as windows do
    }
  }

  #command(action: string): void {
    this.#toPage(channels.command, action);
  }

  #toPage(channel: string, payload: unknown): void {
    if (this.#window && !this.#window.isDestroyed()) this.#window.webContents.send(channel, payload);
  }

  async #chooseClip(): Promise<void> {
    const { filePaths } = await dialog.showOpenDialog({
      title: 'Open a clip’s settings',
      properties: ['openFile'],
      filters: [{ name: 'Clips', extensions: clipEndings.map((ending) => ending.slice(1)) }],
    });
    if (filePaths[0] !== undefined) await this.openClip(filePaths[0]);
  }

  async #lookForUpdate(): Promise<void> {
    const { checkForUpdates } = await this.#client.call('settings.get');
    const version = await newerVersion({
      enabled: checkForUpdates,
      current: app.getVersion(),
      feed: updateFeed,
      fetch: net.fetch as typeof fetch,
    });
    if (version !== null) {
      void dialog.showMessageBox({ message: `VMoBA Studio ${version} is available.`, buttons: ['Good to know'] });
    }
  }
}

async function choosePath(what: 'file' | 'folder', title: string): Promise<string | null> {
  const { filePaths } = await dialog.showOpenDialog({
    title,
    properties: [what === 'folder' ? 'openDirectory' : 'openFile'],
  });
  return filePaths[0] ?? null;
}

/** Says why a library could not be opened, and offers what can be done. */
export async function explainFailure(error: unknown): Promise<void> {
  const owner =
    error instanceof StudioError && error.code === 'library-locked'
      ? readOwner(libraryPaths(defaultLibraryFolder()))
      : null;
  const message = toErrorShape(error).message;
  if (!owner?.url) return dialog.showErrorBox('The library cannot be opened', message);
  const { response } = await dialog.showMessageBox({
    type: 'info',
    message,
    detail: 'It can be used from there, in the browser.',
    buttons: ['Open in the browser', 'Quit'],
    cancelId: 1,
  });
  if (response === 0) await shell.openExternal(owner.url);
}

/** For every page there will ever be; called before the first. */
export function guardAllPages(): void {
  guardPages(app, {
    development: developmentAddress(app.isPackaged),
    openOutside: (url) => shell.openExternal(url),
  });
}
