/** What the studio is doing, in as few words as a taskbar needs. */
import type { StudioClient } from '../../contract/client.ts';
import type { Render } from '../../contract/renders.ts';

export interface Activity {
  /** The running render. */
  renderId: string | null;
  /** Of it, 0..1. */
  fraction: number;
  /** Renders that wait behind it. */
  queued: number;
  mode: 'running' | 'finishing' | 'paused' | 'waiting-for-space';
}

export interface ActivityListeners {
  changed(activity: Activity): void;
  /** A render came to its end. */
  ended(render: Render): void;
}

/** Follows the studio over its own contract. */
export async function followActivity(client: StudioClient, listeners: ActivityListeners): Promise<void> {
  let activity: Activity = { renderId: null, fraction: 0, queued: 0, mode: 'running' };
  const update = (changes: Partial<Activity>) => {
    activity = { ...activity, ...changes };
    listeners.changed(activity);
  };
  client.on('queue.changed', ({ runningId, queued, mode }) => {
    const fraction = runningId === activity.renderId ? activity.fraction : 0;
    update({ renderId: runningId, queued, mode, fraction });
  });
  client.on('renders.progress', ({ id, progress }) => update({ renderId: id, fraction: progress.fraction }));
  client.on('renders.changed', (render) => {
    if (render.state === 'done' || render.state === 'failed') listeners.ended(render);
  });
  const { runningId, queued, mode } = await client.call('queue.status');
  update({ renderId: runningId, queued, mode });
}
