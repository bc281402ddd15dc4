/** Models: installed ones, the catalogue, downloads. */
import { z } from 'zod';
import { attentionPolicy } from './attentionPolicy.ts';
import { done, downloadId, errorShape, modelId, nothing, timestamp } from './common.ts';
import { event, method } from './method.ts';
import { modelLimits } from './renderRequest.ts';
import { renderSettings } from './renderSettings.ts';

/** Kind of word → words. */
export const modelWords = z.record(z.string(), z.array(z.string()));

export const model = z.object({
  id: modelId,
  name: z.string(),
  licence: z.string().nullable(),
  origin: z.enum(['embedded', 'reference', 'copy', 'download']),
  /** `missing`: files have gone. `changed`: files are not those that were recorded. */
  state: z.enum(['ok', 'missing', 'changed']),
  reason: z.string().nullable(),
  /** Where it lies, to show. */
  folder: z.string(),
  bytes: z.int(),
  fingerprint: z.string(),
  limits: modelLimits,
  /** What it is best run with; absent members are for the client to choose. */
  defaults: renderSettings
    .pick({
      width: true,
      height: true,
      frames: true,
      fps: true,
      steps: true,
      guidanceScale: true,
      shift: true,
      scheduler: true,
      negativePrompt: true,
    })
    .partial(),
  /** The policy it was trained with. */
  policy: attentionPolicy.nullable(),
  /** Renders noise: made for trying out. */
  randomWeights: z.boolean(),
  /** The words it was trained on, by kind, as far as its model.json says. */
  knows: modelWords,
  addedAt: timestamp,
});
export type Model = z.infer<typeof model>;

export const modelInspection = z.object({
  kind: z.enum(['wan-dit', 'wan-vae', 'umt5', 'model', 'unknown']),
  naming: z.string(),
  tensors: z.number(),
  bytes: z.number(),
  dtypes: z.record(z.string(), z.number()),
  config: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
  warnings: z.array(z.string()),
});

export const catalogueEntry = z.object({
  id: modelId,
  name: z.string(),
  description: z.string(),
  licence: z.string(),
  licenceUrl: z.string(),
  /** Where its makers describe it. */
  homepage: z.string(),
  files: z.array(
    z.object({
      role: z.enum(['dit', 'vae', 'textEncoder', 'tokenizer']),
      name: z.string(),
      url: z.string(),
      /** About; the server's word decides. */
      approximateBytes: z.int(),
      /** Null where it is not known beforehand; then it is recorded with the download. */
      sha256: z.string().nullable(),
    }),
  ),
  approximateBytes: z.int(),
  installed: z.boolean(),
  /** Part of the studio: nothing to download. */
  builtIn: z.boolean(),
});
export type CatalogueEntry = z.infer<typeof catalogueEntry>;

export const download = z.object({
  id: downloadId,
  catalogueId: modelId,
  name: z.string(),
  /** `waiting-for-space`: the disk is too full; it goes on by itself when there is room, and `models.download` tries at once. */
  state: z.enum(['running', 'waiting-for-space', 'paused', 'failed', 'done']),
  receivedBytes: z.int(),
  totalBytes: z.int().nullable(),
  /** The file in transit. */
  file: z.string().nullable(),
  bytesPerSecond: z.number().nullable(),
  /** How much more must become free; null unless it waits for space. */
  missingBytes: z.int().nullable(),
  /** What it waits for, or why it failed. */
  error: errorShape.nullable(),
});
export type Download = z.infer<typeof download>;

const path = z.string().min(1).max(4096);
const oneModel = z.strictObject({ id: modelId });
const oneDownload = z.strictObject({ id: downloadId });

export const modelMethods = {
  'models.list': method('Installed models.', nothing, z.object({ items: z.array(model) })),
  'models.import': method(
    "Adds a model from a folder on the studio's machine: one with a model.json, or one with the weight files of a transformer, an autoencoder, a text encoder and a tokeniser. `reference` leaves the files where they are. Errors: bad-model-file, conflict, disk-full.",
    z.strictObject({
      path,
      how: z.enum(['reference', 'copy']).default('reference'),
      name: z.string().min(1).max(200).optional(),
    }),
    model,
  ),
  'models.inspect': method(
    "What a weight file or folder on the studio's machine holds; nothing is loaded. Errors: bad-model-file.",
    z.strictObject({ path }),
    modelInspection,
  ),
  'models.verify': method(
    'Reads all files and compares them with the hashes recorded at import or download; records them where there are none. Errors: not-found.',
    oneModel,
    z.object({
      ok: z.boolean(),
      files: z.array(
        z.object({
          name: z.string(),
          bytes: z.int(),
          sha256: z.string(),
          state: z.enum(['same', 'recorded', 'different', 'missing']),
        }),
      ),
    }),
  ),
  'models.remove': method(
    'Forgets a model; files of a copy or download are deleted, referenced ones stay. Errors: conflict while renders wait for it, for the embedded model.',
    oneModel,
    done,
  ),
  'models.catalogue': method(
    'Models that can be run: those that come with the studio, then those that can be downloaded.',
    nothing,
    z.object({ items: z.array(catalogueEntry) }),
  ),
  'models.download': method(
    'Starts, or goes on with, the download of a catalogue entry. Errors: not-found, conflict when installed.',
    z.strictObject({ catalogueId: modelId }),
    download,
  ),
  'models.downloads': method(
    'Downloads under way, waiting, paused or failed.',
    nothing,
    z.object({ items: z.array(download) }),
  ),
  'models.pauseDownload': method(
    'Stops it, also over restarts of the studio; what has come stays. Errors: io.',
    oneDownload,
    download,
  ),
  'models.cancelDownload': method('Ends it and removes what has come.', oneDownload, done),
};

export const modelEvents = {
  'models.changed': event('The installed models have changed.', z.object({ items: z.array(model) })),
  'models.download': event('Progress of a download, a few times a second, and its end.', download),
  'models.verifying': event('Progress of `models.verify`.', z.object({ id: modelId, fraction: z.number() })),
};
