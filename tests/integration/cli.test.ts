/** The command line's manners: help, exit codes, one-line reasons. */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { endStartedClis, projectRoot, runCli, takeOf } from '../support/cli.ts';
import { probe } from '../support/clips.ts';
import { makeRandomModel } from '../support/models.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-manners-'));
const fixtures = join(projectRoot, 'tests', 'fixtures');
let model: string;

beforeAll(() => {
  model = makeRandomModel(join(folder, 'tiny'), 'tiny');
});
afterEach(endStartedClis);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each([[], ['render'], ['verify'], ['bench'], ['inspect'], ['devices']])(
  '%s --help names the exit codes',
  async (...command) => {
    const { code, stdout } = await runCli([...command, '--help']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/Exit codes:[\s\S]*130 {2}cancelled/);
  },
);

test('bench measures attention on a device, on the embedded model’s own values too', async () => {
  const sizes = [
    'grid=[3,6,8]',
    'captureGrid=[2,4,6]',
    'heads=1',
    'headDim=32',
    'precision=f32',
    'repeats=1',
    'densities=[0.5]',
  ];
  const { code, stdout } = await runCli(['bench', 'attention', ...sizes, '--backend', 'emulated', '--json']);
  expect(code).toBe(0);
  const { rows, clock, notes } = JSON.parse(stdout);
  expect(clock).toBe('device');
  expect(notes).toEqual([expect.stringMatching(/^Nano, step 5 of 8/)]);
  expect(new Set(rows.map((row: { data: string }) => row.data))).toEqual(new Set(['captured', 'smooth', 'random']));
});

test('unknown commands and options are bad input', async () => {
  expect(await runCli(['paint'])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("unknown command 'paint'"),
  });
  expect(await runCli(['render', 'a', '--colour', 'red'])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining('--colour'),
  });
});

describe('a bad request is refused before any work, with its field', () => {
  const out = join(folder, 'refused.mp4');
  test.each([
    [['--frames', '16'], 'frames', 'frames must be 4k+1 (13 or 17), not 16.'],
    [['--size', '65x48'], 'width', 'width must be a multiple of 16 for this model (64 or 80), not 65.'],
    [['--size', 'large'], 'size', "size must look like 832x480, not 'large'."],
    [['--steps', '0'], 'steps', 'steps must be at least 1, not 0.'],
    [['--guidance', '-1'], 'guidanceScale', 'guidanceScale must be at least 0, not -1.'],
    [['--shift', 'NaN'], 'shift', 'shift must be a number, not NaN.'],
    [['--seed', 'x'], 'seed', 'seed must be a whole number.'],
    [
      ['--policy', 'magic'],
      'policy',
      "'magic' is no attention policy: use model, dense, vmoba-training-free, vmoba-trained, JSON, or a file with JSON.",
    ],
    [['--out', '/proc/nowhere/clip.mp4'], 'out', expect.stringContaining('/proc/nowhere/clip.mp4 cannot be written')],
    [['--model', '/nowhere'], 'model', expect.stringContaining('/nowhere: no such file')],
    [['--memory-limit', '1MB'], 'memoryLimitBytes', expect.stringMatching(/memory|limit/)],
  ])('%j', async (flags, field, message) => {
    const result = await runCli(['render', 'a ball', '--model', model, '--out', out, '--json', ...flags]);
    expect(result.lines.filter((line) => line.event !== 'planned')).toEqual([
      {
        event: 'error',
        code: expect.stringMatching(/^(bad-request|bad-model-file|io|out-of-memory)$/),
        message,
        field,
      },
    ]);
    expect(result.code).toBe(2);
    expect(existsSync(out) || existsSync(`${out}.job`)).toBe(false);
  });

  test.each([
    ['an empty prompt', '  ', 'prompt is empty: say what the clip shows.'],
    ['a prompt of 100,000 characters', 'a'.repeat(100_000), 'prompt must be at most 10000 bytes long: shorten it.'],
  ])('%s', async (_, prompt, message) => {
    const { code, stderr } = await runCli(['render', prompt, '--model', model, '--out', out]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: `vmoba-studio: ${message}\n` });
  });
});

describe('a bad weight file: exit code 2 and one line with file, tensor and reason', () => {
  /** The model with one file spoiled. */
  function spoiled(name: string, file: string, spoil: (path: string) => void): string {
    const copy = join(folder, name);
    cpSync(model, copy, { recursive: true });
    spoil(join(copy, file));
    return copy;
  }

  const dit = 'dit.safetensors';
  const rewriteHeader = (change: (header: Record<string, { shape?: number[] }>) => void) => (path: string) => {
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE(0));
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length));
    change(header);
    const text = Buffer.from(JSON.stringify(header));
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(path, Buffer.concat([size, text, bytes.subarray(8 + length)]));
  };

  test.each([
    ['truncated', dit, (path: string) => truncateSync(path, statSync(path).size - 100), /dit\.safetensors/],
    [
      'no-json',
      dit,
      (path: string) =>
        writeFileSync(path, Buffer.concat([Buffer.from([9, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('not json!')])),
      /dit\.safetensors/,
    ],
    [
      'missing',
      dit,
      rewriteHeader((header) => {
        header['blocks.0.ffn.9.weight'] = header['blocks.0.ffn.0.weight'] ?? {};
        delete header['blocks.0.ffn.0.weight'];
      }),
      /dit\.safetensors.*blocks\.0\.ffn\.0\.weight/,
    ],
    [
      'absurd',
      dit,
      rewriteHeader((header) => ((header['head.head.weight'] ?? {}).shape = [2 ** 40, 2 ** 40])),
      /dit\.safetensors.*head\.head\.weight/,
    ],
    ['swapped', dit, (path: string) => copyFileSync(join(model, 'vae.safetensors'), path), /dit\.safetensors/],
  ])('%s', async (name, file, spoil, reason) => {
    const { code, stderr, stdout } = await runCli([
      'render',
      'a ball',
      '--model',
      spoiled(name, file, spoil),
      '--out',
      join(folder, `${name}.mp4`),
    ]);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr.trim().split('\n')).toEqual([expect.stringMatching(reason)]);
    expect(readdirSync(folder).filter((file) => file.startsWith(`${name}.mp4`))).toEqual([]);
  });

  test('inspect says the same', async () => {
    const path = join(folder, 'cut.safetensors');
    writeFileSync(path, readFileSync(join(model, dit)).subarray(0, 1000));
    const { code, stderr } = await runCli(['inspect', path]);
    expect(code).toBe(2);
    expect(stderr.trim().split('\n')).toEqual([expect.stringContaining('cut.safetensors')]);
  });
});

test('verify fails with exit code 1 when a stored value differs', async () => {
  const changed = join(folder, 'fixtures');
  mkdirSync(changed);
  copyFileSync(join(fixtures, 'umt5_tiny.safetensors'), join(changed, 'umt5_tiny.safetensors'));
  const io = readFileSync(join(fixtures, 'umt5_tiny.io.safetensors'));
  io.writeFloatLE(1e6, io.length - 4);
  writeFileSync(join(changed, 'umt5_tiny.io.safetensors'), io);
  const { code, stdout } = await runCli(['verify', changed]);
  expect(code).toBe(1);
  expect(stdout).toMatch(/^FAIL {2}umt5_tiny\.io\.safetensors/m);
});

test('devices lists the CPU as usable', async () => {
  const { code, stdout } = await runCli(['devices', '--json']);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    devices: expect.arrayContaining([expect.objectContaining({ id: 'cpu', usable: true })]),
  });
});

test('every format by its ending, with a random seed that is said in the file name', async () => {
  for (const [format, ending, codec] of [
    ['webm-vp9', '.webm', 'vp9'],
    ['gif', '.gif', 'gif'],
  ] as const) {
    const out = join(folder, `format${ending}`);
    const take = takeOf(await runCli(['render', 'a ball', '--model', model, '--out', out, '--json']));
    expect(take).toMatchObject({ clip: { format, path: out } });
    expect(probe(out)).toMatchObject({ codec_name: codec, nb_read_frames: '9' });
  }
});

describe('a batch', () => {
  const batch = (name: string, lines: unknown[]) => {
    const file = join(folder, `${name}.jsonl`);
    writeFileSync(file, lines.map((line) => JSON.stringify(line)).join('\n'));
    return ['render', '--batch', file, '--out-dir', join(folder, name), '--model', model, '--raw', '--json'];
  };

  test('renders every line in one engine, each as if alone', async () => {
    const lines = [
      {
        id: 'a',
        prompt: 'a red ball',
        seed: 1,
        width: 64,
        height: 48,
        frames: 9,
        steps: 3,
        guidanceScale: 3,
        shift: 2,
        policy: 'dense',
      },
      { id: 'b', prompt: 'a blue cube', seed: '2', steps: 2 },
      {
        id: 'c',
        prompt: 'a red ball',
        seed: 1,
        width: 64,
        height: 48,
        frames: 9,
        steps: 3,
        guidanceScale: 3,
        shift: 2,
        policy: 'dense',
      },
    ];
    const { code, lines: events } = await runCli(batch('many', lines));
    expect(code).toBe(0);
    expect(events.map((event) => event['id'])).toEqual(['a', 'b', 'c']);
    expect(statSync(join(folder, 'many', 'a.rgb')).size).toBe(9 * 64 * 48 * 3);
    const frames = (id: string) => readFileSync(join(folder, 'many', `${id}.rgb`));
    expect(frames('c').equals(frames('a'))).toBe(true);
    expect(frames('b').equals(frames('a'))).toBe(false);
  });

  test('is checked whole before anything is rendered', async () => {
    const { code, lines } = await runCli(
      batch('bad', [
        { id: 'a', prompt: 'a ball' },
        { id: '../b', prompt: 'a ball' },
      ]),
    );
    expect(code).toBe(2);
    expect(lines).toEqual([
      { event: 'error', code: 'bad-request', field: 'id', message: expect.stringContaining('bad.jsonl:2: id must be') },
    ]);
    expect(existsSync(join(folder, 'bad'))).toBe(false);
  });
});
