import { describe, expect, test } from 'vitest';
import type { StepStatistics } from '../../contract/statistics.ts';
import { duration, bytes } from '../../renderer/i18n/format.ts';
import { denseReasons, ranges, stepDensity } from '../../renderer/state/derive.ts';
import { readMaps, receivedOfFrame, wordOfFrame } from '../../renderer/state/maps.ts';
import { aspectName, snapFrames, snapSide } from '../../renderer/state/sizes.ts';

const layer = (index: number, reason: string | null, density: number) => ({
  layer: index,
  partition: '1d' as const,
  dense: reason !== null,
  reason,
  density,
  selectedBlocks: 1,
  tileUnionBlocks: 1,
  attentionSeconds: 0,
  routingSeconds: 0,
  headDensity: [],
});

const step = (index: number, layers: ReturnType<typeof layer>[]): StepStatistics => ({
  step: index,
  steps: 4,
  timestep: 0,
  sigma: 0,
  seconds: { total: 1, linears: 0.5, attention: 0.3, routing: 0.1, other: 0.1 },
  layers,
  peakBytes: 0,
});

describe('why dense', () => {
  test('each reason once, whole steps apart from single layers', () => {
    const steps = [
      step(0, [layer(0, 'first steps', 1), layer(1, 'first steps', 1)]),
      step(1, [layer(0, 'first steps', 1), layer(1, 'first steps', 1)]),
      step(2, [layer(0, 'layer kept', 1), layer(1, null, 0.2)]),
    ];
    expect(denseReasons(steps)).toEqual([
      { reason: 'first steps', steps: [[0, 1]], layers: [] },
      { reason: 'layer kept', steps: [], layers: [0] },
    ]);
    expect(stepDensity(steps[2] as StepStatistics)).toBeCloseTo(0.6);
  });

  test('ranges join neighbours whatever their order', () => {
    expect(ranges([5, 1, 2, 3, 8])).toEqual([
      [1, 3],
      [5, 5],
      [8, 8],
    ]);
  });
});

describe('maps', () => {
  const header = {
    step: 2,
    layer: 1,
    head: -1,
    grid: [1, 1, 4] as [number, number, number],
    parts: [
      { name: 'blockReceived', offset: 0, shape: [2] },
      { name: 'blockOfToken', offset: 2, shape: [1, 1, 4] },
      { name: 'wordMass', offset: 6, shape: [1, 1, 1, 4] },
    ],
  };
  // Block 0 has three tokens and received 3, block 1 has one token and received 2.
  const floats = Float32Array.of(3, 2, 0, 0, 0, 1, 10, 20, 30, 20);

  test('received attention is per token, so a small last block is not shown as weak', () => {
    const maps = readMaps(header, new Uint8Array(floats.buffer));
    expect([...(receivedOfFrame(maps, 0) ?? [])]).toEqual([0.5, 0.5, 0.5, 1]);
  });

  test('word maps fill the range, also from bytes that begin anywhere', () => {
    const shifted = new Uint8Array(floats.byteLength + 1);
    shifted.set(new Uint8Array(floats.buffer), 1);
    const maps = readMaps(header, shifted.subarray(1));
    expect([...(wordOfFrame(maps, 0, 0) ?? [])]).toEqual([0, 0.5, 1, 0.5]);
    expect(wordOfFrame(maps, 1, 0)).toBeNull();
  });
});

test('sizes and lengths snap to what a model takes', () => {
  expect([snapSide(121, 16), snapSide(3, 16), snapFrames(30), snapFrames(0), snapFrames(81)]).toEqual([
    128, 16, 29, 1, 81,
  ]);
  expect([aspectName(832, 480), aspectName(256, 256), aspectName(100, 300)]).toEqual(['16:9', '1:1', '0.33:1']);
});

test('durations and bytes read as people say them', () => {
  expect([0, 0.0042, 0.84, 12.6, 134, 6732].map(duration)).toEqual([
    '0 s',
    '4 ms',
    '0.84 s',
    '13 s',
    '2 min 14 s',
    '1 h 52 min',
  ]);
  expect([12, 999, 1500, 4_321_000, 7.4e9].map(bytes)).toEqual(['12 bytes', '999 bytes', '1.5 kB', '4.3 MB', '7.4 GB']);
});
