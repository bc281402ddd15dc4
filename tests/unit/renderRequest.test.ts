import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, expectTypeOf, test } from 'vitest';
import { type AttentionPolicy, attentionPolicy, policyPresets } from '../../contract/attentionPolicy.ts';
import { type ClipSettings, parseClipSettings } from '../../contract/clipSettings.ts';
import type { AttentionPolicy as NativePolicy } from '../../main/engine/binding.ts';
import { checkRequest, checkWritable, outsideTrainedRange } from '../../main/studio/render/checkRequest.ts';
import { modelFingerprint, readModelCard } from '../../main/studio/render/modelCard.ts';
import { writeModelFolder } from '../support/models.ts';
import { renderRequest } from '../support/requests.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-request-'));
const model = writeModelFolder(join(folder, 'model'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('a request is refused before any work', () => {
  test.each([
    ['a length that is not 4k+1', { frames: 16 }, 'frames', 'frames must be 4k+1 (13 or 17), not 16.'],
    [
      'a width off the grid',
      { width: 40 },
      'width',
      'width must be a multiple of 16 for this model (32 or 48), not 40.',
    ],
    [
      'a height off the grid',
      { height: 17 },
      'height',
      'height must be a multiple of 16 for this model (16 or 32), not 17.',
    ],
    ['no steps', { steps: 0 }, 'steps', 'steps must be at least 1, not 0.'],
    ['negative guidance', { guidanceScale: -1 }, 'guidanceScale', 'guidanceScale must be at least 0, not -1.'],
    ['NaN', { guidanceScale: Number.NaN }, 'guidanceScale', 'guidanceScale must be a number, not NaN.'],
    ['infinite shift', { shift: Number.POSITIVE_INFINITY }, 'shift', 'shift must be a number, not Infinity.'],
    ['an empty prompt', { prompt: ' \n ' }, 'prompt', 'prompt is empty: say what the clip shows.'],
    [
      'an endless prompt',
      { prompt: 'a'.repeat(100_000) },
      'prompt',
      'prompt must be at most 10000 bytes long: shorten it.',
    ],
    [
      'a seed beyond 64 bits',
      { seed: '18446744073709551616' },
      'seed',
      'seed must be a whole number from 0 to 18446744073709551615.',
    ],
    ['a negative seed', { seed: '-1' }, 'seed', 'seed must be a whole number.'],
    ['a fraction of a step', { steps: 1.5 }, 'steps', 'steps must be a whole number, not 1.5.'],
    ['an unknown member', { stepz: 3 }, 'stepz', 'stepz is not known.'],
    ['a missing member', { width: undefined }, 'width', 'width is missing.'],
    [
      'an unknown scheduler',
      { scheduler: 'magic' },
      'scheduler',
      "scheduler must be one of unipc, dpmpp, euler, not 'magic'.",
    ],
    [
      'a bad policy',
      { policy: { ...policyPresets['vmoba-trained'], tau: -1 } },
      'policy.tau',
      'policy.tau must be at least 0, not -1.',
    ],
  ])('%s', async (_, changes, field, message) => {
    await expect(checkRequest({ ...renderRequest(model), ...changes })).rejects.toMatchObject({
      name: 'StudioError',
      code: 'bad-request',
      field,
      message,
    });
  });

  test('an unknown model', async () => {
    await expect(checkRequest(renderRequest(join(folder, 'nothing')))).rejects.toMatchObject({
      code: 'bad-model-file',
      field: 'model',
      message: expect.stringContaining('a model is a folder with a model.json'),
    });
  });

  test('a broken model description, with file and member', async () => {
    const broken = writeModelFolder(join(folder, 'broken'), { files: { dit: 'a' } });
    await expect(readModelCard(broken)).rejects.toMatchObject({
      message: expect.stringMatching(/broken\/model\.json: files\.vae: /),
    });
    writeFileSync(join(broken, 'model.json'), '{');
    await expect(readModelCard(broken)).rejects.toMatchObject({ message: expect.stringContaining('not valid JSON') });
  });

  test('a place that cannot be written', async () => {
    await expect(checkWritable('/proc/nowhere/clip.mp4')).rejects.toMatchObject({ code: 'io', field: 'out' });
    await expect(checkWritable(join(folder, 'new', 'clip.mp4'))).resolves.toBeUndefined();
  });
});

test('sizes beyond what a model was made for are allowed and said', async () => {
  const { request, card } = await checkRequest({ ...renderRequest(model), width: 128, frames: 21 });
  expect(outsideTrainedRange(request, card)).toEqual([
    'Test was not made for sides above 64 pixels: the clip may look worse.',
    'Test was not made for more than 17 frames: the clip may look worse.',
  ]);
});

test('a fingerprint follows the weights', async () => {
  const card = await readModelCard(model);
  const before = await modelFingerprint(card);
  expect(await modelFingerprint(card)).toBe(before);
  writeFileSync(join(model, 'vae.safetensors'), 'other');
  expect(await modelFingerprint(card)).not.toBe(before);
});

test('the presets are policies, and policies are what the engine takes', () => {
  for (const preset of Object.values(policyPresets)) expect(attentionPolicy.parse(preset)).toEqual(preset);
  expectTypeOf<AttentionPolicy>().toExtend<NativePolicy>();
});

describe('settings read from a file', () => {
  const { model: _model, ...request } = renderRequest(model);
  const settings: ClipSettings = {
    format: 'vmoba-clip/1',
    model: { id: 'test', name: 'Test', fingerprint: 'f' },
    request,
    engine: { version: '0', build: 'b', device: 'cpu' },
    latentHash: '0123456789abcdef',
  };

  test('come back', () => expect(parseClipSettings(JSON.stringify(settings))).toEqual(settings));

  test.each([
    ['nothing', null],
    ['a stranger’s comment', 'Made with love'],
    ['other JSON', '{"a":1}'],
    ['settings of another kind', JSON.stringify({ ...settings, format: 'vmoba-clip/2' })],
    ['values out of range', JSON.stringify({ ...settings, request: { ...request, width: 1e9 } })],
    ['a script', '<script>alert(1)</script>'],
    ['deep nesting', '['.repeat(100_000)],
  ])('are null for %s', (_, comment) => expect(parseClipSettings(comment)).toBeNull());
});
