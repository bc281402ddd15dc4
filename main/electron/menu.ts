/** The native menus. Entries name actions of the page's own registry: a menu is one more way to them, never another meaning. */
import { type MenuItemConstructorOptions } from 'electron';

export interface MenuActions {
  /** Runs an action of the page. */
  command(action: string): void;
  openClip(): void;
  openLogs(): void;
  openHelp(): void;
}

export function menuTemplate(
  platform: NodeJS.Platform,
  isPackaged: boolean,
  { command, openClip, openLogs, openHelp }: MenuActions,
): MenuItemConstructorOptions[] {
  const act = (label: string, action: string, accelerator?: string): MenuItemConstructorOptions => ({
    label,
    // Shown beside the entry; the page itself listens, so that rebound shortcuts hold.
    ...(accelerator === undefined ? {} : { accelerator, registerAccelerator: false }),
    click: () => command(action),
  });
  const mac = platform === 'darwin';
  const screens = [
    act('Compose', 'compose', 'CmdOrCtrl+1'),
    act('Live', 'live', 'CmdOrCtrl+2'),
    act('Queue', 'queue', 'CmdOrCtrl+3'),
    act('Library', 'library', 'CmdOrCtrl+4'),
    act('Models', 'models', 'CmdOrCtrl+5'),
  ];
  return [
    ...(mac ? [{ role: 'appMenu' } as MenuItemConstructorOptions] : []),
    {
      label: '&File',
      submenu: [
        act('New clip', 'compose'),
        { label: 'Open clip’s settings…', accelerator: 'CmdOrCtrl+O', click: openClip },
        { type: 'separator' },
        act('Settings', 'settings', 'CmdOrCtrl+,'),
        ...(mac ? [] : [{ type: 'separator' } as const, { role: 'quit' } as const]),
      ],
    },
    { role: 'editMenu' },
    {
      label: '&Render',
      submenu: [
        act('Render', 'render', 'CmdOrCtrl+Enter'),
        { type: 'separator' },
        act('Pause everything', 'pause-all'),
        act('Resume', 'resume-all'),
      ],
    },
    {
      label: '&View',
      submenu: [
        ...screens,
        { type: 'separator' },
        act('Command palette', 'palette', 'CmdOrCtrl+K'),
        { type: 'separator' },
        { role: 'resetZoom' },
        { role: 'zoomIn' },
        { role: 'zoomOut' },
        { role: 'togglefullscreen' },
        ...(isPackaged ? [] : [{ role: 'toggleDevTools' } as const]),
      ],
    },
    { role: 'windowMenu' },
    {
      role: 'help',
      submenu: [
        act('Keyboard shortcuts', 'shortcuts'),
        { label: 'About VMoBA attention', click: openHelp },
        { label: 'Show log files', click: openLogs },
      ],
    },
  ];
}
