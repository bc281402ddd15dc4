/** The real engine through the real command line: the same bits whatever happens on the way. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type CliLine, endStartedClis, runCli, type RunningCli, startCli, takeOf } from '../support/cli.ts';
import { probe } from '../support/clips.ts';
import { makeRandomModel } from '../support/models.ts';
import { commandOf, descendants, exists, until } from '../support/processes.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-cli-'));
let model: string;

beforeAll(() => {
  model = makeRandomModel(join(folder, 'nano'), 'nano');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

afterEach(endStartedClis);

const prompt = 'a red ball bounces on a blue floor';
const small = ['--frames', '9', '--steps', '5', '--seed', '7'];
const renderArgs = (out: string, more: string[]) => [
  'render',
  prompt,
  '--model',
  model,
  '--out',
  join(folder, out),
  '--json',
  '--checkpoint-every',
  '0',
  ...more,
];
const render = (out: string, more: string[] = small) => runCli(renderArgs(out, more)).then(takeOf);
const resume = (out: string) => runCli(['render', '--resume', join(folder, `${out}.job`), '--json']).then(takeOf);

/** The engine under a command line. */
const engineOf = (cli: RunningCli) =>
  descendants(cli.child.pid as number).find((pid) => commandOf(pid).includes('engineProcess'));

const finishedStep = (step: number) => (line: CliLine) =>
  line.event === 'checkpoint' && (line['step'] as number) >= step;

test('the same seed gives the same frames in two processes, another seed others', async () => {
  const first = await render('first.mp4');
  const second = await render('second.mp4');
  const other = await render('other.mp4', ['--frames', '9', '--steps', '5', '--seed', '8']);
  expect([second.latentHash, second.framesHash]).toEqual([first.latentHash, first.framesHash]);
  expect(other.framesHash).not.toBe(first.framesHash);
  expect(probe(join(folder, 'first.mp4'))).toMatchObject({ codec_name: 'h264', nb_read_frames: '9' });
  expect(readdirSync(folder).filter((name) => name.endsWith('.job') || name.endsWith('.part'))).toEqual([]);
});

describe('killed and resumed, the final latent is identical', () => {
  let reference: { latentHash: string; framesHash: string };
  beforeAll(async () => {
    reference = await render('reference.mp4');
  });

  test.each([1, 2, 3, 4])('after step %i', async (step) => {
    const out = `killed-${step}.mp4`;
    const cli = startCli(renderArgs(out, small));
    await cli.line(finishedStep(step));
    cli.child.kill('SIGKILL');
    expect((await cli.result).signal).toBe('SIGKILL');
    expect(existsSync(join(folder, out))).toBe(false);
    const take = await resume(out);
    expect(take.resumed?.fromStep).toBeGreaterThanOrEqual(step);
    expect([take.latentHash, take.framesHash]).toEqual([reference.latentHash, reference.framesHash]);
    expect(existsSync(join(folder, `${out}.job`))).toBe(false);
  });

  test('when only the engine dies: an error with the reason, and the way on', async () => {
    const out = 'engine.mp4';
    const cli = startCli(renderArgs(out, small));
    await cli.line(finishedStep(2));
    process.kill(engineOf(cli) as number, 'SIGKILL');
    const result = await cli.result;
    expect(result.code).toBe(1);
    expect(result.lines.slice(-2)).toEqual([
      { event: 'resumable', job: join(folder, `${out}.job`) },
      { event: 'error', code: 'engine-crashed', message: expect.stringContaining('SIGKILL') },
    ]);
    const take = await resume(out);
    expect(take.latentHash).toBe(reference.latentHash);
  });

  test('and refuses the checkpoint of another request', async () => {
    const out = 'mixed.mp4';
    const cli = startCli(renderArgs(out, small));
    await cli.line(finishedStep(1));
    cli.child.kill('SIGKILL');
    await cli.result;
    const file = join(folder, `${out}.job`, 'job.json');
    writeFileSync(file, readFileSync(file, 'utf8').replace('"seed": "7"', '"seed": "9"'));
    const result = await runCli(['render', '--resume', join(folder, `${out}.job`), '--json']);
    expect(result.code).toBe(2);
    expect(result.lines.at(-1)).toMatchObject({ event: 'error', code: 'bad-request', field: 'checkpoint' });
  });
});

describe('at 7,800 tokens, in the middle of a step', { timeout: 180_000 }, () => {
  const large = ['--size', '832x480', '--frames', '17', '--steps', '3', '--guidance', '1', '--policy', 'dense'];

  /** A render whose second step is running on the native threads. */
  async function inSecondStep(out: string): Promise<RunningCli> {
    const cli = startCli(renderArgs(out, large));
    const line = await cli.line(
      ({ event, progress }) => event === 'progress' && (progress as { step?: number }).step === 1,
    );
    expect(line, `${cli.lines.length} lines`).toBeDefined();
    return cli;
  }

  test('Ctrl-C stops within a second and keeps the checkpoint', async () => {
    const out = 'interrupted.mp4';
    const cli = await inSecondStep(out);
    const asked = performance.now();
    cli.child.kill('SIGINT');
    const { code, lines } = await cli.result;
    expect(performance.now() - asked).toBeLessThan(1000);
    expect(code).toBe(130);
    expect(lines.at(-1)).toMatchObject({ event: 'error', code: 'cancelled' });
    expect(statSync(join(folder, `${out}.job`, 'checkpoint.safetensors')).size).toBeGreaterThan(1e6);
  });

  test('killing only the parent leaves no process behind after two seconds', async () => {
    const cli = await inSecondStep('orphan.mp4');
    const children = descendants(cli.child.pid as number);
    expect(engineOf(cli)).toBeDefined();
    cli.child.kill('SIGKILL');
    expect(await until(() => !children.some(exists), 2000)).toBe(true);
    await cli.result;
  });
});
