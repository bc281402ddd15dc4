/** The studio's settings. Everything has a default; unknown members of an older file are dropped. */
import { z } from 'zod';
import { nothing, rateFactor, takeFormat } from './common.ts';
import { event, method } from './method.ts';

export const studioSettings = z.object({
  /** Device id; null: the best usable one. */
  device: z.string().max(100).nullable().default(null),
  /** 0 = all cores. */
  threads: z.int().min(0).max(1024).default(0),
  /** Null: what the machine has. */
  memoryLimitBytes: z.int().min(0).nullable().default(null),
  /** How much the engine yields to other programs, 0 to 19. */
  engineNice: z.int().min(0).max(19).default(5),
  /** Shortest time between two checkpoints. */
  checkpointSeconds: z.number().min(0).max(3600).default(5),
  /** Below this much free space no render starts, and a running one pauses. */
  minimumFreeBytes: z
    .int()
    .min(0)
    .default(256 * 1024 * 1024),
  /** Format of new clips. */
  format: takeFormat.default('mp4'),
  rateFactor: rateFactor.nullable().default(null),
  /** Where exports go; null: the library's own folder. */
  exportFolder: z.string().max(4096).nullable().default(null),
  notifyOnDone: z.boolean().default(true),
  appearance: z.enum(['system', 'dark', 'light']).default('system'),
  reducedMotion: z.enum(['system', 'on', 'off']).default('system'),
  /** Action name → keys. */
  shortcuts: z.record(z.string().max(100), z.string().max(100)).default({}),
  /** Whatever else a client wants to keep: window layout, last settings. */
  client: z.record(z.string().max(100), z.json()).default({}),
  checkForUpdates: z.boolean().default(false),
});
export type StudioSettings = z.infer<typeof studioSettings>;

const withoutDefaults = Object.fromEntries(
  Object.entries(studioSettings.shape).map(([name, schema]) => [name, schema.unwrap().optional()]),
) as {
  [Name in keyof typeof studioSettings.shape]: z.ZodOptional<ReturnType<(typeof studioSettings.shape)[Name]['unwrap']>>;
};

/** Changes: what is left out stays. `shortcuts` and `client` are merged by member; null removes a member of `client`. */
export const settingsPatch = z.strictObject(withoutDefaults);

export const settingsMethods = {
  'settings.get': method('All settings.', nothing, studioSettings),
  'settings.update': method('Changes some settings.', settingsPatch, studioSettings),
};

export const settingsEvents = {
  'settings.changed': event('Settings have changed.', studioSettings),
};
