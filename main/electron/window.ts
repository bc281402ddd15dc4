/** The studio's window. */
import { BrowserWindow, screen } from 'electron';
import { pageAddress } from './address.ts';
import { loadWindowState, saveWindowState, smallestSize, usualSize } from './windowState.ts';

export interface WindowOptions {
  /** Path of the preload bundle. */
  preload: string;
  icon: string;
  /** File that keeps place and size. */
  stateFile: string;
  development: string | undefined;
}

export function openWindow({ preload, icon, stateFile, development }: WindowOptions): BrowserWindow {
  const areas = screen.getAllDisplays().map((display) => display.workArea);
  const state = loadWindowState(stateFile, areas);
  const window = new BrowserWindow({
    ...usualSize,
    ...state?.bounds,
    minWidth: smallestSize.width,
    minHeight: smallestSize.height,
    // Shown when there is something to see.
    show: false,
    title: 'VMoBA Studio',
    icon,
    backgroundColor: '#131312',
    webPreferences: {
      preload,
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
    },
  });
  if (state?.maximized) window.maximize();
  window.once('ready-to-show', () => window.show());
  let saving: NodeJS.Timeout | undefined;
  const save = () => {
    clearTimeout(saving);
    if (!window.isDestroyed() && !window.isMinimized())
      saveWindowState(stateFile, { bounds: window.getNormalBounds(), maximized: window.isMaximized() });
  };
  const saveSoon = () => {
    clearTimeout(saving);
    saving = setTimeout(save, 500);
  };
  window.on('resize', saveSoon);
  window.on('move', saveSoon);
  window.on('close', save);
  void window.loadURL(development ?? pageAddress);
  return window;
}
