/**
 * The studio as a new user meets it in a second terminal: serve, import a model, render to the served studio, watch, pause,
 * pull the plug, start again, get the clip.
 */
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { Render } from '../../contract/renders.ts';
import { type CliResult, endStartedClis, runCli, startCli } from '../support/cli.ts';
import { probe } from '../support/clips.ts';
import { makeRandomModel } from '../support/models.ts';
import { descendants, exists, until } from '../support/processes.ts';
import { connectTo, startServe } from '../support/served.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-served-'));
const library = join(folder, 'library');

const elsewhere = ['--library', join(folder, 'reference')];

beforeAll(async () => {
  const model = makeRandomModel(join(folder, 'tiny'), 'tiny');
  for (const where of [['--library', library], elsewhere]) {
    expect(await runCli(['models', 'import', model, ...where])).toMatchObject({ code: 0 });
  }
}, 120_000);
afterAll(() => {
  endStartedClis();
  rmSync(folder, { recursive: true, force: true });
});

const cli = (...args: string[]) => runCli([...args, '--library', library]);
const answer = <Value>({ code, stdout, stderr }: CliResult): Value => {
  expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as Value;
};
/** Long enough, on any machine, for another command to come between. */
const long = ['--model', 'tiny', '--size', '128x128', '--frames', '9', '--steps', '1000'];
const settings = [...long, '--seed', '7'];

test(
  'serve, render --connect, watch, pause, pull the plug, start again, get the clip',
  { timeout: 180_000 },
  async () => {
    // The reference: rendered in one go, in a studio inside the command itself, in another library.
    const whole = await runCli([
      'render',
      'a red ball',
      ...settings,
      '--out',
      join(folder, 'whole.mp4'),
      '--json',
      ...elsewhere,
    ]);
    const reference = takeOf(whole);

    const first = await startServe(library);
    const watching = startCli(['render', 'a red ball', ...settings, '--connect', first.url, '--json']);
    const created = await watching.line((line) => line.event === 'created');
    const { id } = created?.['render'] as Render;
    await watching.line((line) => line.event === 'renders.step');
    answer(await cli('queue', 'pause', id, '--json')); // finds the owner of the library by itself
    await watching.line((line) => line.event === 'renders.changed' && (line['render'] as Render).state === 'paused');
    const paused = answer<{ items: Render[] }>(await cli('queue', 'list', '--json')).items[0] as Render;
    expect(paused).toMatchObject({ id, state: 'paused' });
    expect(paused.stepsDone).toBeGreaterThan(0);

    answer(await cli('queue', 'resume', id, '--json'));
    await watching.line(
      (line) => line.event === 'renders.step' && line !== watching.lines.find((one) => one.event === 'renders.step'),
    );
    const children = descendants(first.cli.child.pid as number);
    first.cli.child.kill('SIGKILL');
    expect(await watching.result).toMatchObject({ code: 1 });
    expect(watching.lines.at(-1)).toMatchObject({ event: 'error', code: 'disconnected' });
    expect(await until(() => children.every((pid) => !exists(pid)), 5000)).toBe(true);

    const second = await startServe(library);
    expect(await cli('queue', 'run', id, '--json')).toMatchObject({ code: 0 });
    const takes = answer<{ id: string }[]>(await cli('takes', 'list', '--json'));
    expect(takes).toHaveLength(1);
    const take = takes[0] as { id: string };
    const clip = join(folder, 'clip.mp4');
    answer(await cli('takes', 'save', take.id, clip, '--json'));
    expect(probe(clip)).toMatchObject({ codec_name: 'h264', nb_read_frames: '9' });
    expect(take).toMatchObject({
      latentHash: reference.latentHash,
      framesHash: reference.framesHash,
      bitIdentical: true,
    });

    second.cli.child.kill('SIGINT');
    expect(await second.cli.result).toMatchObject({ code: 0 });
    expect(readdirSync(join(library, 'work'))).toEqual([]);
  },
);

test('Ctrl-C stops watching a served render, and keeps one of its own for later', { timeout: 120_000 }, async () => {
  const render = ['render', 'a blue ball', ...long, '--json'];
  const served = await startServe(library);
  const watching = startCli([...render, '--connect', served.url]);
  await watching.line((line) => line.event === 'renders.step');
  watching.child.kill('SIGINT');
  expect(await watching.result).toMatchObject({ code: 130 });
  {
    await using client = await connectTo(served);
    expect(await client.call('queue.status')).toMatchObject({ mode: 'running', runningId: expect.any(String) });
  }
  served.cli.child.kill('SIGTERM');
  expect(await served.cli.result).toMatchObject({ code: 0 });

  const list = async () => answer<{ items: Render[] }>(await cli('queue', 'list', '--json')).items;
  const [kept] = await list();
  expect(kept).toMatchObject({ state: 'queued' });
  expect(kept?.stepsDone).toBeGreaterThan(0);

  const here = startCli([...render, '--next', '--library', library]);
  await here.line((line) => line.event === 'renders.step');
  here.child.kill('SIGINT');
  expect(await here.result).toMatchObject({ code: 130 });
  expect(here.lines.at(-1)).toMatchObject({ event: 'error', code: 'cancelled' });
  const both = await list();
  expect(both.map((render) => render.state)).toEqual(['queued', 'queued']);
  expect(both[0]?.stepsDone).toBeGreaterThan(0);
  for (const { id } of both) answer(await cli('queue', 'cancel', id, '--json'));
});

test('errors are the same everywhere, and say what to do', { timeout: 120_000 }, async () => {
  const served = await startServe(library);
  const bad = ['render', 'a ball', '--model', 'tiny', '--frames', '16', '--json'];
  const [there, alone, noAddress, stale, nobody, twice, noModel, folderThere, noTake] = await Promise.all([
    runCli([...bad, '--connect', served.url]),
    runCli([...bad, ...elsewhere]),
    runCli(['queue', 'list', '--connect', 'http://127.0.0.1:8421']),
    runCli(['queue', 'list', '--connect', `${served.origin}/?token=stale`]),
    runCli(['queue', 'list', '--connect', 'http://127.0.0.1:9/?token=a']),
    cli('serve'),
    cli('render', 'a ball', '--model', 'none'),
    cli('render', 'a ball', '--model', './nowhere', '--connect', served.url),
    cli('takes', 'save', 'tak_00000000000000000000', join(folder, 'no.mp4')),
  ]);
  const error = {
    event: 'error',
    code: 'bad-request',
    field: 'settings.frames',
    message: expect.stringContaining('13 or 17'),
  };
  expect(there).toMatchObject({ code: 2, lines: [error] });
  expect(alone).toMatchObject({ code: 2, lines: [error] });
  const saying = (code: number, text: string) => ({ code, stderr: expect.stringContaining(text) });
  expect(noAddress).toMatchObject(saying(2, 'the address that vmoba-studio serve printed'));
  expect(stale).toMatchObject(saying(1, 'a new one at each start'));
  expect(nobody).toMatchObject(saying(1, 'No studio answers at http://127.0.0.1:9'));
  expect(twice).toMatchObject(saying(1, `served already: ${served.url}`));
  expect(noModel).toMatchObject(saying(2, 'There is no model none'));
  expect(folderThere).toMatchObject(saying(2, 'models import'));
  expect(noTake).toMatchObject({ code: 2 });
  expect(existsSync(join(folder, 'no.mp4'))).toBe(false);

  const made = answer<{ id: string }>(await cli('projects', 'create', 'Balls', '--json'));
  answer(await cli('projects', 'rename', made.id, 'Bouncing balls', '--json'));
  const projects = answer<unknown[]>(await cli('projects', 'list', '--json'));
  expect(projects).toContainEqual(expect.objectContaining({ id: made.id, name: 'Bouncing balls' }));
  served.cli.child.kill('SIGTERM');
  await served.cli.result;
});

function takeOf(result: CliResult): { latentHash: string; framesHash: string } {
  const done = result.lines.find((line) => line.event === 'done');
  if (!done) throw new Error(`the render ended with ${result.code}: ${result.stdout.slice(-500)}${result.stderr}`);
  return done['take'] as ReturnType<typeof takeOf>;
}
