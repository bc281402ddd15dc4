/**
 * What a supervising process and its forked child say to each other. Messages are structured-cloned (Node's advanced
 * serialization, Electron's utilityProcess), so byte arrays cross as bytes. Both sides come from one build and trust each other.
 */

/** Parent → child. */
export type ParentMessage =
  | { kind: 'call'; id: number; method: string; args: unknown[] }
  /** A word to a running call or an object of the child, acted on at once (cancel). */
  | { kind: 'tell'; method: string; args: unknown[] }
  | { kind: 'shutdown' };

/** Child → parent. */
export type ChildMessage =
  | { kind: 'ready' }
  | { kind: 'result'; id: number; value: unknown }
  | { kind: 'failure'; id: number; failure: Failure }
  /** Progress of a running call, or of whatever `id` was when the event's listener was registered. */
  | { kind: 'event'; id: number; payload: unknown };

/** An error as it crosses a process border. */
export interface Failure {
  code: string;
  message: string;
  field?: string;
}

/** Copies what can cross from any thrown value; errors without a code are `internal`. */
export function toFailure(error: unknown): Failure {
  if (!(error instanceof Error)) return { code: 'internal', message: String(error) };
  const { code, field } = error as { code?: unknown; field?: unknown };
  return {
    code: typeof code === 'string' ? code : 'internal',
    message: error.message,
    ...(typeof field === 'string' && field !== '' ? { field } : {}),
  };
}
