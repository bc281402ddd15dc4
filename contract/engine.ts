/** The engine process and the machine's devices. */
import { z } from 'zod';
import { nothing } from './common.ts';
import { event, method } from './method.ts';

export const device = z.object({
  id: z.string(),
  name: z.string(),
  kind: z.enum(['cpu', 'cuda']),
  usable: z.boolean(),
  /** Why it cannot be used, and what to do about it. */
  reason: z.string().nullable(),
  memoryBytes: z.number(),
  instructionSet: z.string().nullable(),
  precisions: z.array(z.enum(['f32', 'bf16'])),
});

export const engineStatus = z.object({
  /** `unavailable`: it cannot start at all; the reason says why. */
  state: z.enum(['stopped', 'idle', 'rendering', 'unavailable']),
  reason: z.string().nullable(),
  version: z.string().nullable(),
  build: z.string().nullable(),
  threads: z.int().nullable(),
  devices: z.array(device),
  /** Since the studio was opened. */
  crashes: z.int(),
});
export type EngineStatus = z.infer<typeof engineStatus>;

export const engineMethods = {
  'engine.status': method(
    'The engine and its devices; starts it to ask. Never fails: the state tells.',
    nothing,
    engineStatus,
  ),
  'engine.restart': method(
    'Ends the engine process; a running render goes on from its checkpoint in a new one.',
    nothing,
    engineStatus,
  ),
};

export const engineEvents = {
  'engine.changed': event('The engine started, ended, or took up a render.', engineStatus),
};
