/** Where the window was: kept between starts, and never off the screens there are now. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { z } from 'zod';

export interface Rectangle {
  x: number;
  y: number;
  width: number;
  height: number;
}

const stored = z.object({
  bounds: z.object({ x: z.int(), y: z.int(), width: z.int(), height: z.int() }),
  maximized: z.boolean(),
});
export type WindowState = z.infer<typeof stored>;

export const usualSize = { width: 1360, height: 860 };
export const smallestSize = { width: 880, height: 600 };

/** What was kept, as far as it can still be seen; null for the usual place. */
export function loadWindowState(path: string, workAreas: readonly Rectangle[]): WindowState | null {
  try {
    const state = stored.parse(JSON.parse(readFileSync(path, 'utf8')));
    const { bounds } = state;
    const visible = workAreas.some((area) => overlap(bounds, area) >= Math.min(bounds.width, 200) * 100);
    const large = bounds.width >= smallestSize.width && bounds.height >= smallestSize.height;
    return visible && large ? state : null;
  } catch {
    return null; // none yet, or not readable: the usual place
  }
}

/** As far as the disk takes it: where the window was is no reason to disturb anyone. */
export function saveWindowState(path: string, state: WindowState): void {
  const temporary = `${path}.part`;
  try {
    writeFileSync(temporary, JSON.stringify(state));
    renameSync(temporary, path);
  } catch {
    // The place kept before stays.
  }
}

/** Area in square pixels. */
function overlap(a: Rectangle, b: Rectangle): number {
  const width = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
  return Math.max(0, width) * Math.max(0, height);
}
