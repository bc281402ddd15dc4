/** How the files of a take are called: readable, safe on every system, and the same each time for one render. */
import { basename } from 'node:path';
import { fileEndings } from '../encode/formats.ts';
import type { StoredRender } from '../library/tables/renders.ts';

export interface TakeFileNames {
  clip: string;
  poster: string;
  maps: string;
}

/** Names inside the folder of takes. */
export function takeFileNames(render: Pick<StoredRender, 'id' | 'settings' | 'output'>): TakeFileNames {
  const words = render.settings.prompt
    .normalize('NFKD')
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .replace(/^-+|-+$/g, '')
    .toLowerCase();
  // The whole time and chance of the id: two renders never share a file. Cut by code points, so that no character is halved.
  const readable = [...words].slice(0, 40).join('').replace(/-+$/, '') || 'clip';
  const name = basename(`${readable}-${render.id.slice(4)}`);
  return { clip: name + fileEndings[render.output.format], poster: `${name}.png`, maps: `${name}.maps` };
}

/** The render that a file in the folder of takes belongs to by its name, null for any other file. */
export function renderOfFile(name: string): string | null {
  const found = /-([0-9a-z]{20})\.[a-z0-9]+$/.exec(name)?.[1];
  return found === undefined ? null : `rnd_${found}`;
}
