/** `vmoba-studio queue`: what waits, and what is to become of it. */
import { Command } from 'commander';
import { StudioError } from '../../contract/errors.ts';
import type { Render } from '../../contract/renders.ts';
import type { MethodOutput } from '../../contract/index.ts';
import { abortOnSignals } from './engine.ts';
import { follow } from './follow.ts';
import { formatSeconds } from './format.ts';
import { asking, contractCommand, type ContractFlags, everyPage, printResult } from './contractCommand.ts';
import { type StudioSession, withSession } from './studioSession.ts';
import { renderPrinter } from './studioProgress.ts';
import { table } from './table.ts';

const open: Render['state'][] = ['running', 'queued', 'paused', 'failed'];

export function queueCommand(): Command {
  const queue = new Command('queue').description('Look at the queue, and steer it');
  const add = (name: string, description: string) => contractCommand(queue, name, description);

  add('list', 'What runs, waits, is paused or failed')
    .option('--all', 'finished ones too')
    .action(asking((session, { all, json }: ContractFlags & { all?: boolean }) => list(session, all ?? false, json)));

  add('run', 'Work until nothing waits any more, or until one render is done')
    .argument('[id]')
    .action(async (id: string | undefined, flags: ContractFlags) => {
      const signal = abortOnSignals();
      await withSession(flags, true, (session) => run(session, id, flags.json ?? false, signal));
    });

  add('finish', 'Finish the running render, then pause').action(
    asking(async ({ client }, { json }) => tellQueue(await client.call('queue.finishCurrent', {}), json)),
  );

  const perhapsOne = [
    ['pause', 'renders.pause', 'queue.pause', 'Pause one render, or everything'],
    ['resume', 'renders.resume', 'queue.resume', 'Let one render, or everything, go on'],
  ] as const;
  for (const [name, one, all, description] of perhapsOne) {
    add(name, description)
      .argument('[id]')
      .action(
        asking(async ({ client }, { json }, id?: string) =>
          id === undefined
            ? tellQueue(await client.call(all, {}), json)
            : tellRender(await client.call(one, { id }), json),
        ),
      );
  }

  const one = [
    ['cancel', 'renders.cancel', 'Cancel a render; its steps stay until it is removed'],
    ['retry', 'renders.retry', 'Queue a failed or cancelled render again'],
    ['duplicate', 'renders.duplicate', 'Queue the same settings once more'],
  ] as const;
  for (const [name, method, description] of one) {
    add(name, description)
      .argument('<id>')
      .action(asking(async ({ client }, { json }, id: string) => tellRender(await client.call(method, { id }), json)));
  }

  add('move', 'Move a waiting render')
    .argument('<id>')
    .argument('<place>', "'first', 'last', or the id of the render that comes after it")
    .action(
      asking(async (session, { json }, id: string, place: string) => {
        const to = place === 'first' || place === 'last' ? place : { before: place };
        await session.client.call('renders.move', { ids: [id], to });
        await list(session, false, json);
      }),
    );

  add('remove', 'Take renders out of the list; their takes stay')
    .argument('<ids...>')
    .action(
      asking(async ({ client }, { json }, ids: string[]) => {
        printResult(await client.call('renders.remove', { ids }), json, () => console.log(`Removed ${ids.length}.`));
      }),
    );
  return queue;
}

async function list({ client }: StudioSession, all: boolean, json: boolean | undefined): Promise<void> {
  const status = await client.call('queue.status', {});
  const items = await everyPage((cursor) =>
    client.call('renders.list', { ...(all ? {} : { states: open }), cursor, limit: 500 }),
  );
  printResult({ status, items }, json, () => {
    tellQueue(status, false);
    if (items.length > 0) console.log('');
    for (const line of table(items.map(row))) console.log(line);
  });
}

function row({ id, state, progress, stepsDone, settings, error, takeId }: Render): string[] {
  const { steps, width, height, frames, prompt } = settings;
  const percent = progress ? `${progress.phase} ${Math.round(100 * progress.fraction)} %` : '';
  const kept = stepsDone > 0 && state !== 'done' ? `${stepsDone}/${steps} steps` : '';
  const tail = error ? `  ${error.message}` : takeId ? `  ${takeId}` : '';
  return [id, state, percent || kept, `${width}×${height}×${frames}`, shortened(prompt) + tail];
}

const shortened = (text: string) => (text.length <= 60 ? text : `${text.slice(0, 59)}…`);

async function run(session: StudioSession, id: string | undefined, json: boolean, signal: AbortSignal): Promise<void> {
  const { client } = session;
  const finish = async (renderId: string) => {
    const printer = renderPrinter(json);
    const { takeId } = await follow(session, printer, signal).of(renderId);
    printer.done(await client.call('takes.get', { id: takeId }), null);
  };
  if (id !== undefined) return finish(id);
  const { mode } = await client.call('queue.status', {});
  if (mode === 'paused') await client.call('queue.resume', {});
  let failed = 0;
  for (;;) {
    const { items } = await client.call('renders.list', { states: ['running', 'queued'], limit: 1 });
    const next = items[0];
    if (!next) break;
    await finish(next.id).catch((error: unknown) => {
      // A render that fails is told and left; the others go on.
      const own = error instanceof StudioError && !signal.aborted && error.code !== 'disconnected';
      if (!own) throw error;
      failed++;
      if (!json) process.stderr.write(`${next.id}: ${error.message}\n`);
    });
  }
  if (!json) console.log('Nothing waits.');
  if (failed > 0) process.exitCode = 1;
}

function tellQueue(status: MethodOutput<'queue.status'>, json: boolean | undefined): void {
  printResult(status, json, () => {
    const { mode, reason, queued, paused, failed, done, etaSeconds } = status;
    const counts = `${queued} queued, ${paused} paused, ${failed} failed, ${done} done`;
    const eta = etaSeconds === null || queued === 0 ? '' : `, about ${formatSeconds(etaSeconds)} to go`;
    console.log(`The queue is ${mode}${reason ? ` (${reason})` : ''}: ${counts}${eta}.`);
  });
}

function tellRender(render: Render, json: boolean | undefined): void {
  printResult(render, json, () => console.log(table([row(render)])[0]));
}
