/**
 * Who may talk to the host. Three questions, all of which must be answered well:
 *   Host     does the request name an address this host was told to serve? (A rebound DNS name does not.)
 *   Origin   does it come from the host's own page, or from no page at all?
 *   Secret   does it bear the token, or the session that the token was exchanged for?
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

export interface AccessOptions {
  /** Made anew at every start unless given. */
  token?: string | undefined;
  port: number;
  /** Names and addresses by which the host may be called, without port. */
  hostNames: ReadonlySet<string>;
}

export type Refusal = { status: 400 | 401 | 403 | 421; reason: string };

export const newToken = (): string => randomBytes(32).toString('base64url');

export class Access {
  readonly token: string;
  /** What a browser keeps instead of the token; worthless after this process. */
  readonly #session = newToken();
  readonly #port: number;
  readonly #hostNames: ReadonlySet<string>;

  constructor({ token = newToken(), port, hostNames }: AccessOptions) {
    this.token = token;
    this.#port = port;
    this.#hostNames = hostNames;
  }

  /** Cookies belong to a name, not to a port: two hosts on one machine must not overwrite each other's. */
  get #cookieName(): string {
    return `vmoba-studio-${this.#port}`;
  }

  get cookie(): string {
    return `${this.#cookieName}=${this.#session}; HttpOnly; SameSite=Strict; Path=/`;
  }

  isToken(text: string): boolean {
    return sameSecret(text, this.token);
  }

  /** Null: the request's address and origin are in order. Says nothing yet about the secret. */
  refuseSender(headers: IncomingHttpHeaders): Refusal | null {
    const host = headers.host ?? '';
    if (!this.#isOurs(host)) {
      return { status: 421, reason: 'This address is not served here. Start with --allow-host to permit a name.' };
    }
    const { origin } = headers;
    if (origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`) {
      return { status: 403, reason: 'Requests from other pages are not answered.' };
    }
    // Browsers say where a request comes from also where they send no Origin: pictures, scripts, links.
    const site = headers['sec-fetch-site'];
    const followsLink = headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document';
    if (site !== undefined && site !== 'same-origin' && site !== 'none' && !followsLink) {
      return { status: 403, reason: 'Requests from other pages are not answered.' };
    }
    return null;
  }

  /**
   * Null: the request bears the secret. A cookie travels by itself, so for what acts (`acting`) it counts only beside the Origin
   * of the host's page.
   */
  refuseSecret(headers: IncomingHttpHeaders, acting: boolean): Refusal | null {
    const [, bearer] = /^Bearer ([\w-]{1,200})$/i.exec(headers.authorization ?? '') ?? [];
    if (bearer !== undefined) return this.isToken(bearer) ? null : unauthorized;
    const session = cookieValue(headers.cookie ?? '', this.#cookieName);
    if (session === undefined || !sameSecret(session, this.#session)) return unauthorized;
    if (acting && headers.origin === undefined) return { status: 403, reason: 'A browser names its page here.' };
    return null;
  }

  #isOurs(host: string): boolean {
    const [, name, port] = /^(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?$/i.exec(host) ?? [];
    if (name === undefined || Number(port ?? 80) !== this.#port) return false;
    return this.#hostNames.has(name.toLowerCase());
  }
}

const unauthorized: Refusal = {
  status: 401,
  reason: 'Open the address that vmoba-studio serve printed: it carries the token.',
};

/** Takes the same time wherever two secrets differ, and whatever their lengths. */
export function sameSecret(given: string, secret: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(secret));
}

function cookieValue(header: string, name: string): string | undefined {
  for (const part of header.split(';')) {
    const at = part.indexOf('=');
    if (at > 0 && part.slice(0, at).trim() === name) return part.slice(at + 1).trim();
  }
  return undefined;
}
