/** A render through a studio's queue: it is in the library like any other, and outlives this command. */
import { resolve } from 'node:path';
import { StudioError } from '../../contract/errors.ts';
import type { MethodInput } from '../../contract/index.ts';
import type { Model } from '../../contract/models.ts';
import { checkWritable } from '../studio/render/checkRequest.ts';
import { abortOnSignals } from './engine.ts';
import { exitCodes } from './exitCodes.ts';
import { follow } from './follow.ts';
import { formatOf, rateFactorFrom, type RenderFlags, requestFromFlags } from './renderOptions.ts';
import { type SessionFlags, type StudioSession, withSession } from './studioSession.ts';
import { renderPrinter } from './studioProgress.ts';

export interface StudioRenderFlags extends RenderFlags, SessionFlags {
  out?: string;
  format?: string;
  crf?: string;
  next?: boolean;
  draft?: boolean;
  project?: string;
  detach?: boolean;
  json?: boolean;
}

export async function renderInStudio(prompt: string | undefined, flags: StudioRenderFlags): Promise<void> {
  if (prompt === undefined) {
    const message = 'Say what the clip shows: vmoba-studio render "a red ball …".';
    throw new StudioError('bad-request', message, { field: 'prompt' });
  }
  const out = flags.out === undefined ? undefined : resolve(flags.out);
  if (out !== undefined) await checkWritable(out);
  if (flags.detach && out !== undefined) {
    throw new StudioError('bad-request', 'out and detach exclude each other: save the clip when it is there.', {
      field: 'out',
    });
  }
  const signal = abortOnSignals();
  await withSession(flags, !flags.detach, async (session) => {
    const creation = await creationFrom(session, prompt, flags);
    const printer = renderPrinter(flags.json ?? false);
    // Listening before asking: nothing that happens in between is missed.
    const ending = follow(session, printer, signal);
    const render = await session.client.call('renders.create', creation);
    printer.created(render);
    if (flags.detach) return ending.dispose();
    const { takeId } = await ending.of(render.id);
    const take = await session.client.call('takes.get', { id: takeId });
    if (out !== undefined) await session.save(take.clip.mediaId, out);
    printer.done(take, out ?? null);
  }).catch((error: unknown) => {
    if (signal.aborted) process.exitCode = exitCodes.cancelled;
    throw error;
  });
}

async function creationFrom(
  { client }: StudioSession,
  prompt: string,
  flags: StudioRenderFlags,
): Promise<MethodInput<'renders.create'>> {
  const format = formatOf(flags.format, flags.out);
  if (format === 'png') {
    const message = 'A take is one file: render it, then export it as PNG pictures.';
    throw new StudioError('bad-request', message, { field: 'format' });
  }
  const { items } = await client.call('models.list', {});
  const model = chosenModel(items, flags.model ?? 'nano');
  const settings = { model: model.id, ...(await requestFromFlags(prompt, flags, model)) };
  const rateFactor = rateFactorFrom(flags.crf, format);
  return {
    // Text of the options as it is: the studio parses it and names the field that is wrong.
    settings: settings as unknown as MethodInput<'renders.create'>['settings'],
    place: flags.next ? 'next' : 'last',
    kind: flags.draft ? 'draft' : 'final',
    output: { format, ...(rateFactor === undefined ? {} : { rateFactor }) },
    ...(flags.project === undefined ? {} : { projectId: flags.project }),
  };
}

function chosenModel(models: Model[], id: string): Model {
  const found = models.find((model) => model.id === id);
  if (found) return found;
  const known = models.map((model) => model.id).join(', ') || 'none';
  throw new StudioError(
    'not-found',
    `There is no model ${id} in this studio (installed: ${known}). Add a folder with vmoba-studio models import, or render from it with --model ./folder.`,
    { field: 'model' },
  );
}
