/** The whole contract: every method a client may call, every event it is told, and their types. */
import type { z } from 'zod';
import { engineEvents, engineMethods } from './engine.ts';
import { estimateMethods } from './estimates.ts';
import { exportEvents, exportMethods } from './exports.ts';
import { modelEvents, modelMethods } from './models.ts';
import { presetEvents, presetMethods } from './presets.ts';
import { projectEvents, projectMethods } from './projects.ts';
import { promptMethods } from './prompts.ts';
import { queueEvents, queueMethods } from './queue.ts';
import { renderEvents, renderMethods } from './renders.ts';
import { settingsEvents, settingsMethods } from './settings.ts';
import { studioEvents, studioMethods } from './studio.ts';
import { takeEvents, takeMethods } from './takes.ts';
import { uploadMethods } from './uploads.ts';

export const methods = {
  ...studioMethods,
  ...renderMethods,
  ...queueMethods,
  ...takeMethods,
  ...uploadMethods,
  ...projectMethods,
  ...presetMethods,
  ...promptMethods,
  ...estimateMethods,
  ...modelMethods,
  ...engineMethods,
  ...exportMethods,
  ...settingsMethods,
};

export const events = {
  ...studioEvents,
  ...renderEvents,
  ...queueEvents,
  ...takeEvents,
  ...projectEvents,
  ...presetEvents,
  ...modelEvents,
  ...engineEvents,
  ...exportEvents,
  ...settingsEvents,
};

export type MethodName = keyof typeof methods;
export type EventName = keyof typeof events;

/** What a caller gives; members with defaults may be left out. */
export type MethodInput<Name extends MethodName> = z.input<(typeof methods)[Name]['input']>;
/** What a handler gets: parsed, defaults filled in. */
export type ParsedInput<Name extends MethodName> = z.output<(typeof methods)[Name]['input']>;
export type MethodOutput<Name extends MethodName> = z.output<(typeof methods)[Name]['output']>;
export type EventPayload<Name extends EventName> = z.output<(typeof events)[Name]['payload']>;

/** One handler for every method, no more and no fewer. */
export type Handlers<Context> = {
  [Name in MethodName]: (
    input: ParsedInput<Name>,
    context: Context,
  ) => MethodOutput<Name> | Promise<MethodOutput<Name>>;
};

/** Handlers of one subject: those whose names begin with it. */
export type HandlersOf<Subject extends string, Context> = {
  [Name in MethodName as Name extends `${Subject}.${string}` ? Name : never]: Handlers<Context>[Name];
};

export const isMethodName = (name: string): name is MethodName => Object.hasOwn(methods, name);
export const isEventName = (name: string): name is EventName => Object.hasOwn(events, name);
