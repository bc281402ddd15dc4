/** The one origin of the desktop app's page, its assets and its media. */
export const scheme = 'app';
export const pageOrigin = 'app://studio';
export const pageAddress = `${pageOrigin}/`;

/** Where electron-vite serves the page while it is developed; never in a packaged app. */
export function developmentAddress(isPackaged: boolean): string | undefined {
  return isPackaged ? undefined : process.env['ELECTRON_RENDERER_URL'];
}

/** Whether a frame shows the studio's page: the only sender that is listened to. */
export function isStudioPage(url: string, development: string | undefined): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, host } = new URL(url);
  // Own schemes have no origin of their own in Node's URL.
  if (`${protocol}//${host}` === pageOrigin) return true;
  return development !== undefined && new URL(url).origin === new URL(development).origin;
}
