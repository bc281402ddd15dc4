/** What a failed run means for the render and for the queue. */
import { StudioError } from '../../../contract/errors.ts';

export type Verdict =
  /** The process under it ended: run it again from its checkpoint. */
  | { kind: 'again' }
  /** The same, but somebody ended the process on purpose. */
  | { kind: 'again-uncounted' }
  /** No room: everything waits until there is. */
  | { kind: 'wait-for-space' }
  /** The machine cannot write or run at all: the queue pauses, nothing is lost. */
  | { kind: 'pause-queue' }
  /** This render cannot be done; the others may. */
  | { kind: 'fail' };

export function judge(error: unknown): Verdict {
  if (!(error instanceof StudioError)) return { kind: 'fail' };
  switch (error.code) {
    case 'engine-crashed':
    case 'engine-hung':
    case 'encoder-crashed':
    case 'encoder-hung':
      return { kind: 'again' };
    case 'engine-stopped':
    case 'encoder-stopped':
      return { kind: 'again-uncounted' };
    case 'disk-full':
      return { kind: 'wait-for-space' };
    case 'io':
    case 'engine-unavailable':
    case 'library-corrupt':
      return { kind: 'pause-queue' };
    default:
      return { kind: 'fail' };
  }
}

/** Ends of a process under a render, by where it stood. */
export class CrashCount {
  readonly #counts = new Map<string, number>();

  /** Returns how often it has ended there. */
  add(place: string): number {
    const count = (this.#counts.get(place) ?? 0) + 1;
    this.#counts.set(place, count);
    return count;
  }
}

/** As often as this at one step, and the render fails. */
export const crashesAllowed = 3;
