/** Looking for a newer version: off unless a person turns it on, and only where the build names an address to ask. */
import { z } from 'zod';

const release = z.object({ version: z.string().regex(/^\d+\.\d+\.\d+$/), notes: z.string().max(10_000).optional() });

export interface UpdateOptions {
  /** The person's setting. */
  enabled: boolean;
  current: string;
  /** Null: this build has no such address. */
  feed: string | null;
  fetch: typeof fetch;
}

/** The newer version, or null. Never rejects: nothing may depend on it. */
export async function newerVersion({ enabled, current, feed, fetch }: UpdateOptions): Promise<string | null> {
  if (!enabled || feed === null) return null;
  try {
    const response = await fetch(feed, { redirect: 'error', signal: AbortSignal.timeout(10_000) });
    const { version } = release.parse(await response.json());
    return isNewer(version, current) ? version : null;
  } catch {
    return null;
  }
}

function isNewer(version: string, current: string): boolean {
  const numbers = (text: string) => text.split('.').map(Number);
  const [a, b] = [numbers(version), numbers(current)];
  const at = a.findIndex((value, index) => value !== b[index]);
  return at >= 0 && (a[at] ?? 0) > (b[at] ?? 0);
}
