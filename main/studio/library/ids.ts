/** Ids that sort by the time they were made and cannot be guessed from each other. */
import { randomBytes } from 'node:crypto';

const digits = '0123456789abcdefghjkmnpqrstvwxyz'; // base 32 without letters that look like digits

export type IdPrefix = 'rnd' | 'tak' | 'prj' | 'pre' | 'swp' | 'exp' | 'dwn' | 'upl';

/** `rnd_` and 20 characters: milliseconds since 1970, then 50 random bits. */
export function newId(prefix: IdPrefix, now = Date.now()): string {
  let time = '';
  for (let rest = now, at = 0; at < 10; at++, rest = Math.floor(rest / 32)) time = digits[rest % 32] + time;
  const chance = [...randomBytes(10)].map((byte) => digits[byte % 32]).join('');
  return `${prefix}_${time}${chance}`;
}

/** A render has one take; its id follows from the render's, so that a repeated end finds the same files. */
export const takeIdOf = (renderId: string) => `tak_${renderId.slice(4)}`;
