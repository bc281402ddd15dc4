/**
 * The one message codec. A message is a JSON header and the byte arrays it mentions:
 *
 *   u32 little-endian   length of the header in bytes
 *   header              UTF-8 JSON {message, attachments: [{path, bytes}]}
 *   attachments         one after another, in that order
 *
 * A byte array stands in the message as null; its path says where. Nothing in the JSON text itself is special, so no text of a
 * user can pass for an attachment.
 */
import { z } from 'zod';
import { type ErrorShape, StudioError } from './errors.ts';
import { errorShape } from './common.ts';

export type ClientMessage = { kind: 'call'; id: number; method: string; input: unknown };

export type StudioMessage =
  | { kind: 'result'; id: number; output: unknown }
  | { kind: 'failure'; id: number; error: ErrorShape }
  | { kind: 'event'; name: string; payload: unknown };

/** What a host takes from a client; uploads come in pieces of 1 MiB. */
export const largestClientMessageBytes = 2 * 1024 * 1024;

const maximumAttachments = 64;
const maximumPathLength = 16;

const header = z.object({
  message: z.unknown(),
  attachments: z
    .array(
      z.object({
        path: z
          .array(z.union([z.string(), z.int().min(0)]))
          .min(1)
          .max(maximumPathLength),
        bytes: z.int().min(0),
      }),
    )
    .max(maximumAttachments),
});

const clientMessage = z.strictObject({
  kind: z.literal('call'),
  id: z.int().min(0),
  method: z.string().max(100),
  input: z.unknown(),
});

const studioMessage = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('result'), id: z.int(), output: z.unknown() }),
  z.object({ kind: z.literal('failure'), id: z.int(), error: errorShape }),
  z.object({ kind: z.literal('event'), name: z.string(), payload: z.unknown() }),
]);

type Path = (string | number)[];

export function encodeMessage(message: ClientMessage | StudioMessage): Uint8Array {
  const found: { path: Path; data: Uint8Array }[] = [];
  const copied = withoutBytes(message, [], found);
  const attachments = found.map(({ path, data }) => ({ path, bytes: data.length }));
  const head = new TextEncoder().encode(JSON.stringify({ message: copied, attachments }));
  const encoded = new Uint8Array(4 + head.length + found.reduce((sum, { data }) => sum + data.length, 0));
  new DataView(encoded.buffer).setUint32(0, head.length, true);
  encoded.set(head, 4);
  let at = 4 + head.length;
  for (const { data } of found) {
    encoded.set(data, at);
    at += data.length;
  }
  return encoded;
}

/** Errors: bad-request for anything that is no message. */
export function decodeClientMessage(data: Uint8Array): ClientMessage {
  return check(clientMessage, decode(data)) as ClientMessage;
}

/** Errors: bad-request for anything that is no message. */
export function decodeStudioMessage(data: Uint8Array): StudioMessage {
  return check(studioMessage, decode(data)) as StudioMessage;
}

/** Copies only the objects on the way to byte arrays. */
function withoutBytes(value: unknown, path: Path, found: { path: Path; data: Uint8Array }[]): unknown {
  if (value instanceof Uint8Array) {
    found.push({ path, data: value });
    return null;
  }
  if (Array.isArray(value)) {
    let copy: unknown[] | undefined;
    for (const [index, item] of value.entries()) {
      if (typeof item !== 'object' || item === null) continue;
      const replaced = withoutBytes(item, [...path, index], found);
      if (replaced !== item) (copy ??= [...(value as unknown[])])[index] = replaced;
    }
    return copy ?? value;
  }
  if (typeof value !== 'object' || value === null) return value;
  let copy: Record<string, unknown> | undefined;
  for (const [key, item] of Object.entries(value)) {
    if (typeof item !== 'object' || item === null) continue;
    const replaced = withoutBytes(item, [...path, key], found);
    if (replaced !== item) (copy ??= { ...(value as Record<string, unknown>) })[key] = replaced;
  }
  return copy ?? value;
}

function decode(data: Uint8Array): unknown {
  if (data.length < 4) throw malformed('shorter than its own length');
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const headBytes = view.getUint32(0, true);
  if (headBytes > data.length - 4) throw malformed('its header is longer than the message');
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data.subarray(4, 4 + headBytes)));
  } catch {
    throw malformed('its header is not JSON');
  }
  const { message, attachments } = check(header, json);
  let at = 4 + headBytes;
  for (const { path, bytes } of attachments) {
    if (bytes > data.length - at) throw malformed('an attachment is cut off');
    // A copy: the message's buffer is the pipe's to reuse.
    place(message, path, data.slice(at, at + bytes));
    at += bytes;
  }
  if (at !== data.length) throw malformed('bytes follow its end');
  return message;
}

/** Puts bytes where the message says null, and nowhere else. */
function place(message: unknown, path: Path, data: Uint8Array): void {
  let parent = message;
  for (const [depth, key] of path.entries()) {
    if (typeof parent !== 'object' || parent === null || !Object.hasOwn(parent, key))
      throw malformed('an attachment belongs nowhere');
    const members = parent as Record<string | number, unknown>;
    if (depth < path.length - 1) parent = members[key];
    else if (members[key] === null) members[key] = data;
    else throw malformed('an attachment belongs nowhere');
  }
}

function check<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw malformed('it has not the form of one');
  return parsed.data;
}

const malformed = (reason: string) => new StudioError('bad-request', `The message cannot be read: ${reason}.`);
