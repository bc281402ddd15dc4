/** What went wrong, in a file on this machine and nowhere else. */
import { appendFileSync, mkdirSync, renameSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

const largestBytes = 1024 * 1024;

export class CrashLog {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** Never throws: it is called when things are bad enough. */
  write(what: string, details: unknown): void {
    try {
      mkdirSync(dirname(this.path), { recursive: true });
      if ((statSync(this.path, { throwIfNoEntry: false })?.size ?? 0) > largestBytes)
        renameSync(this.path, `${this.path}.old`);
      appendFileSync(this.path, `${new Date().toISOString()} ${what}: ${inWords(details)}\n`);
    } catch {
      console.error(what, details);
    }
  }
}

function inWords(details: unknown): string {
  if (details instanceof Error) return details.stack ?? details.message;
  return typeof details === 'string' ? details : JSON.stringify(details);
}
