/** The built interface, file by file. Only what lies in its folder at the start can be asked for: no path is ever built from a request. */
import { readdirSync } from 'node:fs';
import { join, relative, sep } from 'node:path';

export interface Page {
  path: string;
  /** Value of Cache-Control: built assets carry a hash in their names. */
  cache: string;
}

/** URL path → file; empty where the interface is not built. */
export function findPages(folder: string | null): ReadonlyMap<string, Page> {
  const pages = new Map<string, Page>();
  if (folder === null) return pages;
  for (const path of filesIn(folder)) {
    const url = `/${relative(folder, path).split(sep).join('/')}`;
    const cache = url.startsWith('/assets/') ? 'private, max-age=31536000, immutable' : 'no-cache';
    pages.set(url === '/index.html' ? '/' : url, { path, cache });
  }
  return pages;
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true, recursive: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name));
  } catch {
    return []; // not built
  }
}
