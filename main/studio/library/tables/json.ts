/** JSON columns and nullable members. */
import type { ErrorShape } from '../../../../contract/errors.ts';

export const toJson = (value: unknown): string => JSON.stringify(value);
export const fromJson = <Value>(text: unknown): Value => JSON.parse(text as string) as Value;
export const errorFrom = (text: unknown): ErrorShape | null => (text === null ? null : fromJson<ErrorShape>(text));

/** Words as a full-text query: each must occur, the last may be unfinished. Null when there are none. */
export function textQuery(query: string | undefined): string | null {
  const words = query?.match(/[\p{L}\p{N}]+/gu) ?? [];
  return words.length === 0 ? null : words.map((word) => `"${word}"*`).join(' ');
}

/** A page cursor that is no cursor of ours counts as the first page. */
export function readCursor(cursor: string | null): [string | number, string | number] | null {
  if (cursor === null) return null;
  try {
    const value = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as unknown;
    if (!Array.isArray(value) || value.length !== 2) return null;
    const [first, second] = value as unknown[];
    const usable = (part: unknown) => typeof part === 'string' || (typeof part === 'number' && Number.isFinite(part));
    return usable(first) && usable(second) ? [first as string | number, second as string | number] : null;
  } catch {
    return null;
  }
}

export const writeCursor = (first: string | number, second: string | number): string =>
  Buffer.from(JSON.stringify([first, second])).toString('base64url');

export interface Page<Item> {
  items: Item[];
  nextCursor: string | null;
  total: number;
}
