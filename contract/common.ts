/** Pieces that several subjects of the contract share. */
import { z } from 'zod';
import { studioErrorCodes } from './errors.ts';

/** Ids sort by the time they were made: three letters for the kind, then 20 characters of time and chance. */
const id = (prefix: string) => z.string().regex(new RegExp(`^${prefix}_[0-9a-z]{20}$`), { error: 'is no valid id' });

export const renderId = id('rnd');
export const takeId = id('tak');
export const projectId = id('prj');
export const presetId = id('pre');
export const sweepId = id('swp');
export const exportId = id('exp');
export const downloadId = id('dwn');
export const uploadId = id('upl');

/** Models are known by a readable name: "nano". */
export const modelId = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,99}$/, { error: 'must be a model id: lower-case letters, digits, dots and dashes' });

/** Names a file that the host serves under its media address; stands for itself and tells nothing about folders. */
export const mediaId = z.string().regex(/^[a-z]{3}_[0-9a-z.]{1,60}$/, { error: 'is no valid media id' });

/** Milliseconds since 1970. */
export const timestamp = z.int().min(0);

export const errorShape = z.object({
  code: z.enum(studioErrorCodes),
  message: z.string(),
  field: z.string().optional(),
});

/** A list is read page by page: `cursor` is null at first, then what the page before gave. */
export const pageRequest = {
  cursor: z.string().max(200).nullable().default(null),
  limit: z.int().min(1).max(500).default(50),
};

export const pageOf = <Item extends z.ZodType>(item: Item) =>
  z.object({
    items: z.array(item),
    /** For the next page; null after the last. */
    nextCursor: z.string().nullable(),
    /** How many there are in all pages. */
    total: z.int(),
  });

/** Bytes that travel beside the message, not as text. */
export const bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array, { error: 'must be bytes' });

export const nothing = z.strictObject({});
export const done = z.object({});

/** One line for people: titles, names. */
export const shortName = z
  .string()
  .max(200)
  .refine((text) => text.trim() !== '', { error: 'is empty' });

export const clipFormat = z.enum(['mp4', 'webm-vp9', 'webm-av1', 'mov-prores', 'gif', 'png']);

/** What a take is stored in: one file. A PNG sequence is for exports. */
export const takeFormat = clipFormat.exclude(['png']);

/** Constant rate factor of the video encoder: lower is better and larger. */
export const rateFactor = z.number().min(0).max(63);
