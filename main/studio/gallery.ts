/**
 * Prompts to begin with, and clips that show what they give. A folder of the studio's resources may hold them: gallery.json
 * [{prompt, settings?, clip?, poster?}] with file names; without it there are only prompts.
 */
import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { settingsChanges } from '../../contract/renderSettings.ts';

const entries = z
  .array(
    z.object({
      prompt: z.string().min(1).max(1000),
      settings: settingsChanges.optional(),
      clip: z.string().max(200).optional(),
      poster: z.string().max(200).optional(),
    }),
  )
  .max(200);

type Entry = z.infer<typeof entries>[number];

const promptsAlone: Entry[] = [
  { prompt: 'a red ball bounces on a blue floor' },
  { prompt: 'a green square moves to the right' },
  { prompt: 'a yellow triangle spins on a black background' },
  { prompt: 'a small white circle falls slowly' },
];

export class Gallery {
  readonly #folder: string | null;
  readonly #entries: Entry[];

  constructor(folder: string | null) {
    this.#folder = folder;
    this.#entries = (folder === null ? null : read(folder)) ?? promptsAlone;
  }

  items() {
    return this.#entries.map(({ prompt, settings = {} }, index) => ({
      prompt,
      settings,
      clipMediaId: this.file(`gal_${index}.clip`) ? `gal_${index}.clip` : null,
      posterMediaId: this.file(`gal_${index}.poster`) ? `gal_${index}.poster` : null,
    }));
  }

  /** The file of a media id of the gallery, null when there is none. */
  file(mediaId: string): string | null {
    const [, index, kind] = /^gal_(\d{1,4})\.(clip|poster)$/.exec(mediaId) ?? [];
    const name = this.#entries[Number(index)]?.[kind as 'clip' | 'poster'];
    if (this.#folder === null || name === undefined) return null;
    const path = join(this.#folder, basename(name));
    return existsSync(path) ? path : null;
  }
}

function read(folder: string): Entry[] | null {
  try {
    const parsed = entries.safeParse(JSON.parse(readFileSync(join(folder, 'gallery.json'), 'utf8')));
    return parsed.success && parsed.data.length > 0 ? parsed.data : null;
  } catch {
    return null; // no gallery: the prompts stand alone
  }
}
