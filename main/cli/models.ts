/** `vmoba-studio models`: what can render, and getting more. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import { fromErrorShape, StudioError } from '../../contract/errors.ts';
import type { Download, Model } from '../../contract/models.ts';
import { asking, contractCommand, type ContractFlags, printResult } from './contractCommand.ts';
import { abortOnSignals } from './engine.ts';
import { exitCodes } from './exitCodes.ts';
import { formatBytes } from './format.ts';
import { progressBar } from './progressBar.ts';
import type { StudioSession } from './studioSession.ts';
import { table } from './table.ts';

export function modelsCommand(): Command {
  const models = new Command('models').description('List, import, check, download and remove models');
  const add = (name: string, description: string) => contractCommand(models, name, description);

  add('list', 'Installed models').action(
    asking(async ({ client }, { json }) => {
      const { items } = await client.call('models.list', {});
      printResult(items, json, () => {
        for (const line of table(items.map(row))) console.log(line);
        if (items.length === 0) console.log('There are none: vmoba-studio models catalogue shows what can be had.');
      });
    }),
  );

  add('show', 'What a model was made for and what it knows')
    .argument('<id>')
    .action(
      asking(async ({ client }, { json }, id: string) => {
        const { items } = await client.call('models.list', {});
        const model = items.find((item) => item.id === id);
        if (!model) throw new StudioError('not-found', `There is no model ${id}; vmoba-studio models list shows them.`);
        printResult(model, json, () => {
          for (const line of table(description(model))) console.log(line);
        });
      }),
    );

  add('catalogue', 'Models that can be downloaded and run').action(
    asking(async ({ client }, { json }) => {
      const { items } = await client.call('models.catalogue', {});
      const rows = items.map(({ id, name, licence, approximateBytes, installed }) => [
        id,
        `about ${formatBytes(approximateBytes)}`,
        licence,
        installed ? 'installed' : '',
        name,
      ]);
      printResult(items, json, () => {
        for (const line of table(rows)) console.log(line);
      });
    }),
  );

  add('import', "Add a model from a folder on the studio's machine; its files stay where they are")
    .argument('<folder>')
    .option('--copy', 'copy the files into the library')
    .option('--name <name>', 'what to call it')
    .action(
      asking(
        async (
          { client },
          { json, copy, name, connect }: ContractFlags & { copy?: boolean; name?: string },
          folder: string,
        ) => {
          const model = await client.call('models.import', {
            // Elsewhere the folder is one of that machine.
            path: connect === undefined ? resolve(folder) : folder,
            how: copy ? 'copy' : 'reference',
            ...(name === undefined ? {} : { name }),
          });
          printResult(model, json, () => console.log(table([row(model)])[0]));
        },
      ),
    );

  add('verify', 'Read all files of a model and compare them with their recorded hashes')
    .argument('<id>')
    .action(
      asking(async ({ client }, { json }, id: string) => {
        const bar = progressBar();
        if (!json) client.on('models.verifying', (at) => at.id === id && bar.draw('reading', at.fraction, ''));
        const { ok, files } = await client.call('models.verify', { id });
        bar.clear();
        printResult({ ok, files }, json, () => {
          const rows = files.map(({ state, name, bytes, sha256 }) => [state, formatBytes(bytes), sha256, name]);
          for (const line of table(rows)) console.log(line);
        });
        if (!ok) process.exitCode = exitCodes.failure;
      }),
    );

  add('download', 'Download a model of the catalogue; goes on where it stopped')
    .argument('<id>')
    .action(asking((session, { json }, id: string) => download(session, id, json ?? false)));

  add('remove', 'Forget a model; files that were copied or downloaded are deleted')
    .argument('<id>')
    .action(
      asking(async ({ client }, { json }, id: string) => {
        printResult(await client.call('models.remove', { id }), json, () => console.log(`Removed ${id}.`));
      }),
    );
  return models;
}

function description({ name, licence, bytes, folder, limits, defaults, knows }: Model) {
  const { minSide, maxTrainedSide, minFrames, maxTrainedFrames, sideMultiple } = limits;
  const range = (from = 1, to?: number) => (to === undefined ? `${from} and more` : `${from} to ${to}`);
  return [
    ['name', name],
    ['licence', licence ?? 'not known'],
    ['files', `${formatBytes(bytes)} in ${folder}`],
    ['sides', `${range(minSide ?? sideMultiple, maxTrainedSide)} pixels, in steps of ${sideMultiple}`],
    ['frames', `${range(minFrames, maxTrainedFrames)}, 4k+1`],
    [
      'best with',
      Object.entries(defaults)
        .map(([key, value]) => `${key} ${value === '' ? '(none)' : value}`)
        .join(', '),
    ],
    ...Object.entries(knows).map(([kind, words]) => [
      kind.replace(/[A-Z]/gu, (c) => ` ${c.toLowerCase()}`),
      words.join(', '),
    ]),
    ...(Object.keys(knows).length > 0 ? [['other words', 'still render, as something of this world']] : []),
  ];
}

function row({ id, name, origin, state, reason, bytes, folder }: Model): string[] {
  return [id, formatBytes(bytes), origin, state === 'ok' ? '' : `${state}: ${reason ?? ''}`, `${name}  ${folder}`];
}

/** Waits for the end; Ctrl-C pauses what came so far. */
async function download({ client, lost }: StudioSession, catalogueId: string, json: boolean): Promise<void> {
  const signal = abortOnSignals();
  const bar = progressBar();
  const ended = new Promise<Download>((resolveEnded, reject) => {
    client.on('models.download', (at) => {
      if (at.catalogueId !== catalogueId) return;
      if (json) console.log(JSON.stringify({ event: 'models.download', ...at }));
      else show(bar, at);
      if (at.state === 'done' || at.state === 'paused') resolveEnded(at);
      else if (at.state === 'failed')
        reject(at.error ? fromErrorShape(at.error) : new StudioError('download-failed', 'It failed.'));
    });
    void lost.then(reject);
  });
  ended.catch(() => {}); // the call's own error comes first
  const { id } = await client.call('models.download', { catalogueId });
  const pause = () => void client.call('models.pauseDownload', { id }).catch(() => {}); // it may be through already
  if (signal.aborted) pause();
  signal.addEventListener('abort', pause);
  const { state } = await ended;
  bar.clear();
  if (state === 'paused') throw new StudioError('cancelled', 'Paused; the same command goes on with it.');
  if (!json) console.log(`${catalogueId} is installed.`);
}

function show(
  bar: ReturnType<typeof progressBar>,
  { receivedBytes, totalBytes, bytesPerSecond, file, state, error }: Download,
): void {
  const speed = bytesPerSecond === null ? '' : `${formatBytes(bytesPerSecond)}/s`;
  const amount = `${formatBytes(receivedBytes)}${totalBytes === null ? '' : ` of ${formatBytes(totalBytes)}`}`;
  const fraction = totalBytes ? receivedBytes / totalBytes : 0;
  bar.draw(state.replaceAll('-', ' '), fraction, [amount, speed, file, error?.message].filter(Boolean).join('  '));
}
