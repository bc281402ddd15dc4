/** Renders: what is asked for, waiting, running or finished. A finished render has a take. */
import { z } from 'zod';
import {
  bytes,
  done,
  errorShape,
  pageOf,
  pageRequest,
  projectId,
  renderId,
  sweepId,
  takeId,
  timestamp,
} from './common.ts';
import { event, method, watchedEvent } from './method.ts';
import { renderOutput, renderSettings, settingsChanges } from './renderSettings.ts';
import { mapsHeader, renderStatistics, stepStatistics, textReport } from './statistics.ts';

/** A running render is in one of the phases; the others are where it stays until someone acts. */
export const renderState = z.enum(['queued', 'running', 'paused', 'done', 'failed', 'cancelled']);
export type RenderState = z.infer<typeof renderState>;

export const renderPhase = z.enum(['loading', 'encoding', 'sampling', 'decoding', 'muxing']);
export type RenderPhase = z.infer<typeof renderPhase>;

export const renderProgress = z.object({
  phase: renderPhase,
  /** Of the whole render, 0..1. */
  fraction: z.number(),
  /** Finished steps, and the layer within the running one. */
  step: z.int(),
  steps: z.int(),
  layer: z.int().nullable(),
  /** Seconds until the clip is there, as far as can be known. */
  etaSeconds: z.number().nullable(),
  /** Stops after the running step, as asked for. */
  pausing: z.boolean(),
});
export type RenderProgress = z.infer<typeof renderProgress>;

export const render = z.object({
  id: renderId,
  projectId,
  state: renderState,
  /** Live, null unless running. */
  progress: renderProgress.nullable(),
  /** Finished steps that a checkpoint holds. */
  stepsDone: z.int(),
  kind: z.enum(['final', 'draft']),
  settings: renderSettings,
  output: renderOutput,
  /** Order in the queue: smaller is earlier. */
  position: z.number(),
  sweepId: sweepId.nullable(),
  /** The take this one is another version of. */
  sourceTakeId: takeId.nullable(),
  takeId: takeId.nullable(),
  /** Why it failed. */
  error: errorShape.nullable(),
  /** How often the engine died under it. */
  engineCrashes: z.int(),
  warnings: z.array(z.string()),
  createdAt: timestamp,
  startedAt: timestamp.nullable(),
  endedAt: timestamp.nullable(),
});
export type Render = z.infer<typeof render>;

const place = z.enum(['last', 'next']).default('last');
const kind = z.enum(['final', 'draft']).default('final');
const one = z.strictObject({ id: renderId });
const several = z.strictObject({ ids: z.array(renderId).min(1).max(10_000) });

const creation = {
  settings: renderSettings,
  /** The first project when absent. */
  projectId: projectId.optional(),
  place,
  kind,
  output: renderOutput.prefault({}),
};

/** Which maps to take from each coming step. */
export const mapsRequest = z.strictObject({
  layer: z.int().min(0).max(1000),
  /** Mean over heads when absent. */
  head: z.int().min(0).max(1000).optional(),
  /** Also where cross-attention uses each prompt word. */
  words: z.boolean().default(false),
});

export const renderMethods = {
  'renders.create': method(
    'Puts a render into the queue: last, or next after the running one. Settings are checked against the model first. Errors: not-found (model, project), disk-full.',
    z.strictObject(creation),
    render,
  ),
  'renders.createSweep': method(
    'One render for each seed: the given ones, or `count` random ones.',
    z.strictObject({
      ...creation,
      seeds: z.union([
        z.array(renderSettings.shape.seed).min(1).max(1000),
        z.strictObject({ count: z.int().min(1).max(1000) }),
      ]),
    }),
    z.object({ sweepId, renders: z.array(render) }),
  ),
  'renders.createFromTake': method(
    'Renders a take again with changes (draft to final: another size, length, steps), keeping the rest, its seed included.',
    z.strictObject({ takeId, changes: settingsChanges, place, kind, output: renderOutput.optional() }),
    render,
  ),
  'renders.get': method('One render. Errors: not-found.', one, render),
  'renders.list': method(
    'Renders in queue order (waiting ones first to last) or, for finished ones, newest first.',
    z.strictObject({
      states: z.array(renderState).min(1).optional(),
      projectId: projectId.optional(),
      sweepId: sweepId.optional(),
      order: z.enum(['queue', 'newest']).default('queue'),
      ...pageRequest,
    }),
    pageOf(render),
  ),
  'renders.edit': method(
    'Changes the settings of a render that is not running and not done. What it had computed is dropped when the picture would change. Errors: conflict.',
    z.strictObject({ id: renderId, changes: settingsChanges, output: renderOutput.optional() }),
    render,
  ),
  'renders.duplicate': method(
    'A new queued render with the same settings, and changes where given.',
    z.strictObject({ id: renderId, changes: settingsChanges.optional(), place }),
    render,
  ),
  'renders.retry': method(
    'Queues a failed or cancelled render again; it continues from its checkpoint where it has one. Errors: conflict.',
    one,
    render,
  ),
  'renders.pause': method(
    'Pauses a queued render, or the running one after its current step with a checkpoint. Errors: conflict.',
    one,
    render,
  ),
  'renders.resume': method('Queues a paused render at its old place. Errors: conflict.', one, render),
  'renders.cancel': method(
    'Cancels a render; a running one stops within a second. Its checkpoint stays until the render is removed. Errors: conflict.',
    one,
    render,
  ),
  'renders.move': method(
    'Moves waiting renders, in their given order, to before another one, to the front or to the back. Errors: conflict for running or finished ones.',
    z.strictObject({
      ids: z.array(renderId).min(1).max(10_000),
      to: z.union([z.enum(['first', 'last']), z.strictObject({ before: renderId })]),
    }),
    done,
  ),
  'renders.remove': method(
    'Takes renders out of the list; running ones are cancelled. Takes stay. `renders.restore` undoes it until the trash is emptied.',
    several,
    done,
  ),
  'renders.restore': method('Undoes `renders.remove`; unfinished ones come back paused.', several, done),
  'renders.statistics': method(
    'Step and attention statistics, also of a running render. Errors: not-found.',
    one,
    renderStatistics,
  ),
  'renders.maps': method(
    'Attention maps kept for a step (see `mappedSteps`). Errors: not-found.',
    z.strictObject({ id: renderId, step: z.int().min(0), layer: z.int().min(0).optional() }),
    z.object({ header: mapsHeader, data: bytes }),
  ),
  'renders.watch': method(
    'From now on this connection gets previews, and the maps it asks for, of a render. Replaces an earlier watch of that render.',
    z.strictObject({ id: renderId, preview: z.boolean().default(true), maps: mapsRequest.nullable().default(null) }),
    done,
  ),
  'renders.unwatch': method('Ends `renders.watch`.', one, done),
};

export const renderEvents = {
  'renders.changed': event('A render is new or has changed: its state, place, settings.', render),
  'renders.removed': event('Renders have gone from the list.', z.object({ ids: z.array(renderId) })),
  'renders.progress': event(
    'Progress of the running render, a few times a second.',
    z.object({ id: renderId, progress: renderProgress }),
  ),
  'renders.text': event('The prompt was encoded.', z.object({ id: renderId, text: textReport })),
  'renders.step': event('A step is finished.', z.object({ id: renderId, step: stepStatistics })),
  'renders.preview': watchedEvent(
    'How the clip looks after a step: RGB24 frames at latent size, frame-major, rows top to bottom.',
    z.object({ id: renderId, step: z.int(), width: z.int(), height: z.int(), count: z.int(), rgb: bytes }),
  ),
  'renders.maps': watchedEvent(
    'Attention maps of a step, as asked for by this connection.',
    z.object({ id: renderId, header: mapsHeader, data: bytes }),
  ),
};
