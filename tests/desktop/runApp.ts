/** Runs the built app against the fake Electron in a process of its own, and answers the test's questions about it. */
import { registerHooks } from 'node:module';
import { pathToFileURL, fileURLToPath } from 'node:url';

const fake = new URL('./fakeElectron.ts', import.meta.url).href;
registerHooks({
  resolve: (specifier, context, next) =>
    specifier === 'electron' ? { url: fake, shortCircuit: true } : next(specifier, context),
});

const { app, handlers, ipcMain, isCancelled, live, records } = await import('./fakeElectron.ts');

const questions = {
  records: () => records,
  ipcChannels: () => ipcMain.eventNames(),
  evaluate: (script: string) => live.page?.evaluate(script),
  loaded: () => live.page !== undefined && live.page.url() !== 'about:blank',
  cancelled: (url: string) => isCancelled(url),
  windowOpen: (url: string) => handlers.windowOpen?.({ url }),
  permission: (permission: string) => {
    const contents = { getURL: () => 'app://studio/' };
    let requested = false;
    handlers.permissionRequest?.(contents, permission, (allowed) => (requested = allowed));
    return { requested, checked: handlers.permissionCheck?.(contents, permission) };
  },
  devicePermission: () => handlers.devicePermission?.(),
  /** Whether a page may go there. */
  navigation: (event: string, url: string) => {
    let prevented = false;
    contents?.emit(event, { url, preventDefault: () => (prevented = true) });
    return !prevented;
  },
  /** A foreign frame asks for a port. */
  connectFrom: (url: string, nested: boolean) => {
    let given = false;
    const senderFrame = { url, parent: nested ? {} : null, postMessage: () => (given = true) };
    ipcMain.emit('studio:connect', { senderFrame });
    return given;
  },
  secondInstance: (path: string) => void app.emit('second-instance', {}, ['vmoba', path], '/'),
  quit: () => app.quit(),
};
export type Questions = typeof questions;

let contents: { emit(name: string, event: unknown): void } | undefined;
app.on('web-contents-created', (_event: unknown, created: typeof contents) => (contents = created));

process.on('message', ({ id, name, args }: { id: number; name: keyof Questions; args: never[] }) => {
  void (async () => {
    try {
      process.send?.({ id, value: await (questions[name] as (...all: never[]) => unknown)(...args) });
    } catch (error) {
      process.send?.({ id, error: String(error) });
    }
  })();
});
process.on('disconnect', () => app.exit(1));

await import(pathToFileURL(fileURLToPath(new URL('../../out/main/main.js', import.meta.url))).href);
