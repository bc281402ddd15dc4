/** The queue as a whole. */
import { z } from 'zod';
import { nothing, renderId } from './common.ts';
import { event, method } from './method.ts';

export const queueStatus = z.object({
  /**
   * `running`: takes the next render whenever one waits. `finishing`: stops after the running render. `paused`: by request.
   * `waiting-for-space`: the disk is full; goes on by itself when there is room.
   */
  mode: z.enum(['running', 'finishing', 'paused', 'waiting-for-space']),
  /** Why it does not run, in words; null while it does. */
  reason: z.string().nullable(),
  runningId: renderId.nullable(),
  queued: z.int(),
  paused: z.int(),
  failed: z.int(),
  done: z.int(),
  /** Seconds until the queue is empty, as far as can be known; null when there is no history to say. */
  etaSeconds: z.number().nullable(),
});
export type QueueStatus = z.infer<typeof queueStatus>;

export const queueMethods = {
  'queue.status': method('How the queue stands.', nothing, queueStatus),
  'queue.pause': method(
    'Pauses everything: the running render after its current step, with a checkpoint; it goes on first at `queue.resume`. Survives a restart.',
    nothing,
    queueStatus,
  ),
  'queue.finishCurrent': method('Finishes the running render, then pauses.', nothing, queueStatus),
  'queue.resume': method('Goes on.', nothing, queueStatus),
};

export const queueEvents = {
  'queue.changed': event('The queue as a whole has changed.', queueStatus),
};
