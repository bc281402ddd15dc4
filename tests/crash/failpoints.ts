/** Every point between two durable steps, in the order a life of a library meets them. */
import type { Failpoint } from '../../main/studio/failpoints.ts';
import type { Campaign } from './campaign.ts';

interface Station {
  name: Failpoint;
  count?: number;
  pause?: boolean;
  /** Deletes the take of the first render. */
  remove?: boolean;
}

export const stations: Station[] = [
  { name: 'migration-executed', count: 2 },
  // The backup before the migrations that are left.
  { name: 'backup-written' },
  { name: 'migration-committed' },
  { name: 'render-inserted' },
  { name: 'render-started' },
  { name: 'checkpoint-seen', count: 3 },
  { name: 'checkpoint-recorded', count: 3 },
  { name: 'pause-recorded', pause: true },
  // The clip itself, then its poster.
  { name: 'file-written', count: 1 },
  { name: 'file-moved', count: 1 },
  { name: 'clip-moved' },
  { name: 'file-written', count: 2 },
  { name: 'file-moved', count: 2 },
  { name: 'poster-written' },
  { name: 'maps-copied' },
  { name: 'maps-written' },
  { name: 'take-committed' },
  { name: 'work-removed' },
  { name: 'deletions-committed', remove: true },
];

/** Dies once at each station, with a new render waiting each time; then works to the end. */
export async function visit(campaign: Campaign, chosen: Station[] = stations): Promise<void> {
  for (const { name, count = 1, pause = false, remove = false } of chosen) {
    campaign.want(1);
    await campaign.dieAt(name, count, { pause, remove: remove ? 1 : 0 });
  }
  await campaign.finish();
}
