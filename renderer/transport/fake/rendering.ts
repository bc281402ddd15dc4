/** What a step of a render gives: statistics, a preview that clears up, and maps that follow the moving shape. */
import type { RenderSettings } from '../../../contract/renderSettings.ts';
import type { MapsHeader, StepStatistics } from '../../../contract/statistics.ts';
import { rgbOf, sceneOf } from './pictures.ts';
import { denseStepsOf, densityOf, layers, planOf, stepSeconds } from './planning.ts';

const partitions = ['1d', '2d', '3d'] as const;
const heads = 4;

export function stepOf(settings: RenderSettings, step: number): StepStatistics {
  const plan = planOf(settings);
  const { policy, steps } = settings;
  const early = step < denseStepsOf(policy, steps);
  const wanted = densityOf(policy);
  const report = Array.from({ length: layers }, (_, layer) => {
    const byPolicy = policy.denseLayers?.includes(layer) ?? false;
    const dense = early || byPolicy;
    const density = dense
      ? 1
      : Math.min(0.95, Math.max(0.02, wanted * (1 + 0.45 * Math.sin(layer * 1.7 + step * 0.21))));
    const partition = partitions[layer % 3] ?? '1d';
    const blocks = plan.partitions.find(({ name }) => name === partition)?.blocks ?? 1;
    return {
      layer,
      partition: dense && policy.mode === 'dense' ? null : partition,
      dense,
      reason: !dense
        ? null
        : policy.mode === 'dense'
          ? 'the policy is dense'
          : early
            ? `the policy keeps the first ${denseStepsOf(policy, steps)} steps dense`
            : 'the policy keeps this layer dense',
      density,
      selectedBlocks: density * blocks,
      tileUnionBlocks: Math.min(blocks, density * blocks * 1.3),
      attentionSeconds: 0,
      routingSeconds: 0,
      headDensity: Array.from({ length: heads }, (_, head) => Math.min(1, density * (0.8 + 0.13 * head))),
    };
  });
  const density = report.reduce((sum, layer) => sum + layer.density, 0) / layers;
  return {
    step,
    steps,
    timestep: 1000 * (1 - step / steps),
    sigma: 1 - step / steps,
    seconds: stepSeconds(plan, density, step),
    layers: report,
    peakBytes: plan.memory.peak,
  };
}

/** Where the shape is in a frame, as shares of the picture: it falls and bounces. */
function centreOf(time: number): [x: number, y: number] {
  return [0.25 + 0.5 * time, 0.7 - 0.45 * Math.abs(Math.sin(time * Math.PI * 2.5))];
}

export function previewOf(settings: RenderSettings, step: number) {
  const { grid, latentShape } = planOf(settings);
  const [, , height, width] = latentShape;
  const [count] = grid;
  const { colour, ground, shape } = sceneOf(settings.prompt);
  const [front, back] = [rgbOf(colour), rgbOf(ground)];
  const rgb = new Uint8Array(count * width * height * 3);
  const clear = Math.min(1, (step + 1) / settings.steps) ** 1.5;
  const radius = Math.min(width, height) * 0.2;
  let random = 12345 + step;
  for (let frame = 0; frame < count; frame++) {
    const [cx, cy] = centreOf(frame / Math.max(1, count - 1));
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [dx, dy] = [x - cx * width, y - cy * height];
        const inside = shape === 'circle' ? Math.hypot(dx, dy) < radius : Math.max(Math.abs(dx), Math.abs(dy)) < radius;
        const colours = inside ? front : back;
        random = (random * 1664525 + 1013904223) >>> 0;
        const noise = random / 2 ** 32;
        const at = ((frame * height + y) * width + x) * 3;
        for (let channel = 0; channel < 3; channel++)
          rgb[at + channel] = (colours[channel] ?? 0) * clear + (1 - clear) * 255 * ((noise * (channel + 3)) % 1);
      }
    }
  }
  return { width, height, count, rgb };
}

export function mapsOf(
  settings: RenderSettings,
  step: number,
  layer: number,
  words: number,
): { header: MapsHeader; data: Uint8Array } {
  const plan = planOf(settings);
  const [t, h, w] = plan.grid;
  const name = partitions[layer % 3] ?? '1d';
  const partition = plan.partitions.find((one) => one.name === name);
  const size = partition?.blocks ?? 1;
  const block = partition?.block ?? [t];
  const blockOf = (frame: number, row: number, column: number): number => {
    const [a = 1, b = 1, c = 1] = block;
    if (name === '1d') return Math.floor(frame / a);
    if (name === '2d') return Math.floor(row / a) * Math.ceil(w / b) + Math.floor(column / b);
    return (Math.floor(frame / a) * Math.ceil(h / b) + Math.floor(row / b)) * Math.ceil(w / c) + Math.floor(column / c);
  };
  const near = (frame: number, row: number, column: number) => {
    const [cx, cy] = centreOf(frame / Math.max(1, t - 1));
    return Math.exp(-((((column + 0.5) / w - cx) ** 2 + ((row + 0.5) / h - cy) ** 2) / 0.03));
  };
  const tokens = t * h * w;
  const parts = [
    { name: 'blockReceived', shape: [size] },
    { name: 'selectionMap', shape: [size, size] },
    { name: 'blockOfToken', shape: [t, h, w] },
    { name: 'wordMass', shape: [words, t, h, w] },
  ];
  let offset = 0;
  const header: MapsHeader = {
    step,
    layer,
    head: -1,
    grid: [t, h, w],
    parts: parts.map(({ name: part, shape }) => {
      const here = { name: part, offset, shape };
      offset += shape.reduce((product, length) => product * length, 1);
      return here;
    }),
  };
  const floats = new Float32Array(offset);
  const [received = 0, selection = 0, ofToken = 0, mass = 0] = header.parts.map((part) => part.offset);
  for (let frame = 0, token = 0; frame < t; frame++)
    for (let row = 0; row < h; row++)
      for (let column = 0; column < w; column++, token++) {
        const at = blockOf(frame, row, column);
        const value = near(frame, row, column);
        floats[ofToken + token] = at;
        floats[received + at] = (floats[received + at] ?? 0) + 0.02 + value;
        for (let word = 0; word < words; word++)
          floats[mass + word * tokens + token] = word % 3 === 2 ? 1 - value : value * (1 + word / 4);
      }
  for (let query = 0; query < size; query++)
    for (let key = 0; key < size; key++)
      floats[selection + query * size + key] =
        query === key
          ? 1
          : // Earlier keys are chosen more often, so that rows and columns cannot be taken for each other.
            Math.exp(-Math.abs(query - key) / (size / (query > key ? 6 : 12))) *
            (0.6 + 0.4 * Math.cos((query - key) * 1.3));
  return { header, data: new Uint8Array(floats.buffer) };
}
