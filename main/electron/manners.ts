/** The desktop's courtesies while renders run: progress in the taskbar, no sleep, a word at the end. */
import { type BrowserWindow, Notification, powerSaveBlocker } from 'electron';
import type { Render } from '../../contract/renders.ts';
import type { Activity } from './activity.ts';

/** Progress on the window's taskbar or dock entry. */
export function showProgress(window: BrowserWindow, { renderId, fraction, mode }: Activity): void {
  if (renderId === null) window.setProgressBar(-1);
  else window.setProgressBar(fraction, { mode: mode === 'paused' ? 'paused' : 'normal' });
}

/** Keeps the machine awake as long as a render runs; the screen may sleep. */
export class WakeLock {
  #id: number | undefined;

  follow({ renderId }: Activity): void {
    if (renderId !== null) this.#id ??= powerSaveBlocker.start('prevent-app-suspension');
    else this.release();
  }

  release(): void {
    if (this.#id !== undefined) powerSaveBlocker.stop(this.#id);
    this.#id = undefined;
  }
}

/** Says that a clip is there, or why not. */
export function notifyOfEnd(render: Render, onClick: () => void): void {
  if (!Notification.isSupported()) return;
  const { prompt } = render.settings;
  const notification = new Notification({
    title: render.state === 'done' ? 'Your clip is ready' : 'A render failed',
    body: render.state === 'done' ? prompt : (render.error?.message ?? prompt),
  });
  notification.on('click', onClick);
  notification.show();
}
