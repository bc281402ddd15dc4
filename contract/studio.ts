/** The studio itself: what it is, how its library stands, and what its host can do. */
import { z } from 'zod';
import { done, errorShape, mediaId, nothing, timestamp } from './common.ts';
import { event, method } from './method.ts';

/** Changes of meaning in the contract raise it; a client of another number says so instead of guessing. */
export const contractVersion = 1;

export const libraryStatus = z.object({
  /** In `corrupt` only studio.*, library.* and host.* answer. */
  state: z.enum(['ok', 'corrupt']),
  problem: errorShape.nullable(),
  folder: z.string(),
  freeBytes: z.number(),
});

export const backup = z.object({ name: z.string(), createdAt: timestamp, bytes: z.int() });

export const studioStatus = z.object({
  contractVersion: z.literal(contractVersion),
  version: z.string(),
  /** What the host offers beyond the contract's rest. */
  host: z.object({
    kind: z.enum(['headless', 'desktop', 'in-process']),
    canReveal: z.boolean(),
    canChoosePaths: z.boolean(),
  }),
  library: libraryStatus,
  /** What start-up found and mended, in words. */
  notices: z.array(z.string()),
});
export type StudioStatus = z.infer<typeof studioStatus>;

export const studioMethods = {
  'studio.status': method('What answers here, and how the library stands.', nothing, studioStatus),
  'library.backups': method('Backups of the database, newest first.', nothing, z.object({ items: z.array(backup) })),
  'library.backup': method('Makes a backup now. Errors: disk-full.', nothing, backup),
  'library.check': method(
    'Looks through the whole database. Empty: nothing is wrong.',
    nothing,
    z.object({ problems: z.array(z.string()) }),
  ),
  'library.restore': method(
    'Replaces a corrupt database by a backup (the newest when not named) or, with `anew`, by an empty one; the corrupt one is kept beside it. Takes that it does not know are found again from their files. Errors: conflict when the library is well, not-found.',
    z.strictObject({ name: z.string().max(200).optional(), anew: z.boolean().default(false) }),
    studioStatus,
  ),
  'host.reveal': method(
    "Shows a file in the system's file manager. Errors: unsupported, not-found.",
    z.strictObject({ mediaId }),
    done,
  ),
  'host.choosePath': method(
    'Lets the person choose a file or folder. Errors: unsupported.',
    z.strictObject({ what: z.enum(['file', 'folder']), title: z.string().max(200) }),
    z.object({ path: z.string().nullable() }),
  ),
};

export const studioEvents = {
  'library.changed': event("The library's health has changed.", libraryStatus),
  'studio.closing': event('The studio is about to end.', z.object({ reason: z.string() })),
};
