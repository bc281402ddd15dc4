/**
 * A studio to be killed. It puts renders into its queue, one per seed and each only once however often it is started, works
 * until nothing is left, and says what it did. With `pause` it pauses everything once in between; takes of `deleted` seeds are
 * deleted when they are there.
 */
import { parseArgs } from 'node:util';
import type { Render } from '../../contract/renders.ts';
import { policyPresets } from '../../contract/attentionPolicy.ts';
import { StudioError } from '../../contract/errors.ts';
import { Studio } from '../../main/studio/studio.ts';
import type { EventPayload, MethodInput, MethodName, MethodOutput } from '../../contract/index.ts';

export interface HostPlan {
  folder: string;
  model: string;
  seeds: number[];
  steps: number;
  deleted: number[];
  pause: boolean;
}

export type HostMessage =
  | { kind: 'open' }
  /** The studio has said that it has it. */
  | { kind: 'enqueued'; seed: number; id: string }
  | { kind: 'retried'; id: string; reason: string }
  | { kind: 'finished' };

const plan = JSON.parse(parseArgs({ allowPositionals: true }).positionals[0] ?? '') as HostPlan;
const tell = (message: HostMessage) => process.send?.(message);
const studio = await Studio.open({
  folder: plan.folder,
  version: 'crash test',
  host: { kind: 'in-process' },
  embeddedModel: plan.model,
  spaceCheckMs: 200,
});
const call = <Name extends MethodName>(name: Name, input: MethodInput<Name>) =>
  studio.call(name, input, { connection: 'host' }) as Promise<MethodOutput<Name>>;
tell({ kind: 'open' });

await call('settings.update', { checkpointSeconds: 0 });
if ((await call('queue.status', {})).mode === 'paused') await call('queue.resume', {});
let pausedOnce = !plan.pause;
studio.events.listen((name, payload) => {
  if (name !== 'renders.step' || pausedOnce) return;
  // After the last step there is nothing to pause.
  if ((payload as EventPayload<'renders.step'>).step.step + 2 >= plan.steps) return;
  pausedOnce = true;
  void call('queue.pause', {});
});

const known = new Map((await allRenders()).map((render) => [Number(render.settings.seed), render.id]));
for (const seed of plan.seeds.filter((wanted) => !plan.deleted.includes(wanted) || known.has(wanted))) {
  const id = known.get(seed) ?? (await enqueue(seed));
  tell({ kind: 'enqueued', seed, id });
}
for (;;) {
  const status = await call('queue.status', {});
  const open = status.queued + status.paused + (status.runningId === null ? 0 : 1);
  if (status.mode === 'paused' && status.runningId === null) await call('queue.resume', {});
  for (const { id, error } of (await call('renders.list', { states: ['failed'], limit: 500 })).items) {
    await call('renders.retry', { id });
    tell({ kind: 'retried', id, reason: error?.message ?? '' });
  }
  if (open === 0 && status.failed === 0) break;
  await new Promise((resolve) => setTimeout(resolve, 200));
}
for (const { takeId } of (await allRenders()).filter(({ settings }) => plan.deleted.includes(Number(settings.seed)))) {
  if (takeId === null) continue;
  await call('takes.trash', { ids: [takeId] });
  await call('takes.delete', { ids: [takeId] });
}
await studio.close();
tell({ kind: 'finished' });
process.disconnect?.();

async function enqueue(seed: number): Promise<string> {
  for (;;) {
    try {
      const render = await call('renders.create', {
        settings: {
          model: 'tiny',
          prompt: `a ball, take ${seed}`,
          width: 64,
          height: 48,
          frames: 9,
          fps: 8,
          steps: plan.steps,
          guidanceScale: 3,
          shift: 2,
          scheduler: 'unipc',
          seed: String(seed),
          policy: policyPresets.dense,
        },
      });
      return render.id;
    } catch (error) {
      // The engine that was asked about it was killed.
      if (!(error instanceof StudioError) || error.code !== 'engine-crashed') throw error;
    }
  }
}

async function allRenders(): Promise<Render[]> {
  const renders: Render[] = [];
  let cursor: string | null = null;
  do {
    const page: MethodOutput<'renders.list'> = await call('renders.list', { limit: 500, cursor });
    renders.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor !== null);
  return renders;
}
