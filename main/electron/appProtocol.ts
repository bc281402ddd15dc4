/** app://studio/: the built page and, under media/, clips by opaque id. Paths are never built from a request. */
import { Readable } from 'node:stream';
import type { CustomScheme } from 'electron';
import { answerWithFile, type FileAnswer, notFound } from '../host/fileAnswer.ts';
import { findPages } from '../host/pages.ts';
import type { Studio } from '../studio/studio.ts';
import { scheme } from './address.ts';

/** To be registered before the app is ready. */
export const studioScheme: CustomScheme = {
  scheme,
  privileges: { standard: true, secure: true, supportFetchAPI: true, stream: true, codeCache: true },
};

/** Answers requests of the page. */
export function serveApp(studio: Studio, rendererFolder: string): (request: Request) => Promise<Response> {
  const pages = findPages(rendererFolder);
  return async (request) => {
    const { host, pathname } = new URL(request.url);
    const { method, headers } = request;
    if (host !== 'studio' || (method !== 'GET' && method !== 'HEAD')) return toResponse(notFound);
    const question = {
      method,
      range: headers.get('range'),
      ifRange: headers.get('if-range'),
      ifNoneMatch: headers.get('if-none-match'),
    } as const;
    const [, mediaId] = /^\/media\/([a-z]{3}_[0-9a-z.]{1,60})$/.exec(pathname) ?? [];
    if (mediaId !== undefined) {
      const path = await studio.media(mediaId);
      return toResponse(path === null ? notFound : await answerWithFile(path, question, 'private, no-cache'));
    }
    const page = pages.get(pathname);
    return toResponse(page ? await answerWithFile(page.path, question, page.cache) : notFound);
  };
}

function toResponse({ status, headers, body }: FileAnswer): Response {
  return new Response(body === null ? null : (Readable.toWeb(body) as ReadableStream), { status, headers });
}
