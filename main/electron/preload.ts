/**
 * Runs in the page's process before the page, sandboxed and in a world of its own: hands a message port over, and lets native menus
 * and dropped files through. Nothing of Node or Electron reaches the page.
 */
import { contextBridge, ipcRenderer, webUtils } from 'electron';
import { channels } from './channels.ts';

contextBridge.exposeInMainWorld('studioDesktop', {
  /** Where a dropped file lies; null for one that lies nowhere. */
  pathOf: (file: File): string | null => webUtils.getPathForFile(file) || null,
  onCommand: (listener: (action: string) => void) =>
    listen(channels.command, (action) => typeof action === 'string' && listener(action)),
  onFileOpened: (listener: (file: unknown) => void) => listen(channels.fileOpened, listener),
});

window.addEventListener('message', ({ source, data }) => {
  if (source === window && data === 'studio-port-please') ipcRenderer.send(channels.connect);
});

ipcRenderer.on(channels.port, ({ ports }) => {
  window.postMessage('studio-port', location.origin, ports);
});

/** Keeps the page away from the event, which holds the sender. */
function listen(channel: string, listener: (payload: unknown) => void): () => void {
  const heard = (_: unknown, payload: unknown) => void listener(payload);
  ipcRenderer.on(channel, heard);
  return () => ipcRenderer.off(channel, heard);
}
