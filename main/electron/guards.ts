/** What pages are denied, whatever they were brought to run: permissions, navigation, windows, the network. */
import type { App, Session, WebContents } from 'electron';
import { isStudioPage, scheme } from './address.ts';

/** Sites a person is led to from the studio: models and their licences. They open in the browser. */
const outside: ReadonlySet<string> = new Set(['huggingface.co', 'github.com', 'arxiv.org', 'www.apache.org']);

/** The page may write to the clipboard when a person copies, and fill the screen with a clip. */
const permitted: ReadonlySet<string> = new Set(['clipboard-sanitized-write', 'fullscreen']);

/** Nothing is loaded from anywhere but the app itself. */
const localSchemes: ReadonlySet<string> = new Set([`${scheme}:`, 'blob:', 'data:', 'devtools:']);

export interface GuardOptions {
  development: string | undefined;
  openOutside(url: string): Promise<void>;
}

/** Guards every page the app ever makes, also ones nobody thought of. */
export function guardPages(app: App, { development, openOutside }: GuardOptions): void {
  app.on('web-contents-created', (_, contents) => {
    const stay = (event: { preventDefault(): void }, url: string) => {
      if (!isStudioPage(url, development)) event.preventDefault();
    };
    contents.on('will-navigate', (event) => stay(event, event.url));
    contents.on('will-redirect', (event) => stay(event, event.url));
    contents.on('will-frame-navigate', (event) => stay(event, event.url));
    contents.on('will-attach-webview', (event) => event.preventDefault());
    contents.setWindowOpenHandler(({ url }) => {
      if (mayOpenOutside(url)) void openOutside(url);
      return { action: 'deny' };
    });
  });
}

export function mayOpenOutside(url: string): boolean {
  if (!URL.canParse(url)) return false;
  const { protocol, host, username } = new URL(url);
  return protocol === 'https:' && username === '' && outside.has(host);
}

/** Permissions and network of the session that shows the page. */
export function guardSession(session: Session, development: string | undefined): void {
  const allows = (contents: WebContents | null, permission: string) =>
    permitted.has(permission) && contents !== null && isStudioPage(contents.getURL(), development);
  session.setPermissionRequestHandler((contents, permission, answer) => answer(allows(contents, permission)));
  session.setPermissionCheckHandler((contents, permission) => allows(contents, permission));
  session.setDevicePermissionHandler(() => false);
  session.webRequest.onBeforeRequest(({ url }, answer) => {
    const local = URL.canParse(url) && localSchemes.has(new URL(url).protocol);
    answer({ cancel: !local && !isDevelopment(url, development) });
  });
}

function isDevelopment(url: string, development: string | undefined): boolean {
  return development !== undefined && URL.canParse(url) && new URL(url).host === new URL(development).host;
}
