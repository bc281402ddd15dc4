/** How the contract's methods and events are written down. */
import type { z } from 'zod';

export interface Method<InputSchema extends z.ZodType = z.ZodType, OutputSchema extends z.ZodType = z.ZodType> {
  /** What it does, for the reference page: one or two sentences, errors beyond bad-request included. */
  description: string;
  input: InputSchema;
  output: OutputSchema;
}

export interface EventDefinition<Payload extends z.ZodType = z.ZodType> {
  description: string;
  payload: Payload;
  /** Heavy: told only to connections that watch the render (`renders.watch`). */
  watchersOnly: boolean;
}

export function method<InputSchema extends z.ZodType, OutputSchema extends z.ZodType>(
  description: string,
  input: InputSchema,
  output: OutputSchema,
): Method<InputSchema, OutputSchema> {
  return { description, input, output };
}

export function event<Payload extends z.ZodType>(description: string, payload: Payload): EventDefinition<Payload> {
  return { description, payload, watchersOnly: false };
}

export function watchedEvent<Payload extends z.ZodType>(
  description: string,
  payload: Payload,
): EventDefinition<Payload> {
  return { description, payload, watchersOnly: true };
}
