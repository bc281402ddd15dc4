/** The tray: how the render stands, also with the window closed. */
import { Menu, type MenuItemConstructorOptions, nativeImage, Tray } from 'electron';
import type { Activity } from './activity.ts';

export interface TrayActions {
  show(): void;
  pause(): void;
  resume(): void;
  quit(): void;
}

export class StudioTray {
  readonly #tray: Tray;
  readonly #actions: TrayActions;
  #shown = '';

  /** Errors: where the system has no tray. */
  constructor(icon: string, actions: TrayActions) {
    this.#actions = actions;
    this.#tray = new Tray(nativeImage.createFromPath(icon).resize({ width: 22, height: 22 }));
    this.#tray.on('click', actions.show);
  }

  follow(activity: Activity): void {
    const words = inWords(activity);
    const shown = `${activity.mode} ${words}`;
    // Menus are rebuilt by the system each time: only for news.
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#tray.setToolTip(`VMoBA Studio: ${words}`);
    this.#tray.setContextMenu(Menu.buildFromTemplate(this.#template(activity, words)));
  }

  destroy(): void {
    this.#tray.destroy();
  }

  #template({ mode }: Activity, words: string): MenuItemConstructorOptions[] {
    const { show, pause, resume, quit } = this.#actions;
    return [
      { label: words, enabled: false },
      { type: 'separator' },
      { label: 'Show VMoBA Studio', click: show },
      mode === 'paused' ? { label: 'Resume rendering', click: resume } : { label: 'Pause rendering', click: pause },
      { type: 'separator' },
      { label: 'Quit', click: quit },
    ];
  }
}

/** "Rendering, 43 %; 2 wait". In steps of whole percents. */
export function inWords({ renderId, fraction, queued, mode }: Activity): string {
  const waiting = queued === 0 ? '' : `${queued} ${queued === 1 ? 'waits' : 'wait'}`;
  if (renderId !== null) return [`Rendering, ${Math.floor(100 * fraction)} %`, waiting].filter(Boolean).join('; ');
  if (mode === 'paused') return ['Paused', waiting].filter(Boolean).join('; ');
  if (mode === 'waiting-for-space') return 'Waiting for disk space';
  return waiting || 'Nothing to render';
}
