/** Entry of the desktop app: one instance, guarded before the first page, closed in order. */
import { join } from 'node:path';
import { app, crashReporter, dialog, protocol } from 'electron';
import { studioScheme } from './appProtocol.ts';
import { CrashLog } from './crashLog.ts';
import { Desktop, explainFailure, guardAllPages } from './desktop.ts';
import { clipsAmong } from './openedFiles.ts';

app.setName('VMoBA Studio');
app.enableSandbox();
protocol.registerSchemesAsPrivileged([studioScheme]);
// Dumps of native crashes stay in a folder on this machine.
crashReporter.start({ uploadToServer: false });

const log = new CrashLog(join(app.getPath('logs'), 'studio.log'));
let desktop: Desktop | undefined;
/** Clips opened before the studio was. */
const early: string[] = [];

if (app.requestSingleInstanceLock()) start();
else app.quit();

function start(): void {
  process.on('uncaughtException', (error) => void fail(error));
  process.on('unhandledRejection', (reason) => log.write('a promise nobody waited for', reason));
  app.on('child-process-gone', (_, details) => log.write('a child process ended', details));
  app.on('second-instance', (_, args, folder) => {
    desktop?.show();
    openAll(clipsAmong(args.slice(1), folder));
  });
  app.on('open-file', (event, path) => {
    event.preventDefault();
    openAll([path]);
  });
  app.on('activate', () => desktop?.show());
  app.on('window-all-closed', () => {
    if (process.platform !== 'darwin') app.quit();
  });
  app.on('before-quit', (event) => {
    if (!desktop) return;
    const closing = desktop;
    desktop = undefined;
    event.preventDefault();
    void closing
      .close()
      .catch((error: unknown) => log.write('closing', error))
      .finally(() => app.quit());
  });
  guardAllPages();
  void app.whenReady().then(open);
}

async function open(): Promise<void> {
  try {
    desktop = await Desktop.start(log);
    openAll([...early, ...clipsAmong(process.argv.slice(app.isPackaged ? 1 : 2), process.cwd())]);
  } catch (error) {
    log.write('the studio could not be opened', error);
    await explainFailure(error);
    app.exit(1);
  }
}

function openAll(paths: readonly string[]): void {
  if (!desktop) early.push(...paths);
  else for (const path of paths) void desktop.openClip(path);
}

/** A fault of the app itself: written down, told, and ended; the queue is in the library and goes on at the next start. */
async function fail(error: Error): Promise<void> {
  log.write('uncaught', error);
  dialog.showErrorBox('VMoBA Studio has to close', `${error.message}\n\nDetails are in ${log.path}.`);
  await desktop?.close().catch(() => {}); // the first error counts
  app.exit(1);
}
