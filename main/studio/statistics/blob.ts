/**
 * Statistics of a render as one small blob: what would be a hundred thousand rows of numbers is columns here. Layer numbers keep
 * 14 significant bits (one in 16,000), head densities 8 bits (one in 255); everything else is exact.
 *
 *   zstd of:  u32 header length · header JSON · for each layer column, the four byte planes of its float32 values · u8 head densities
 */
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { RenderPlan } from '../../../contract/plan.ts';
import type { RenderStatistics, StepStatistics } from '../../../contract/statistics.ts';
import type { TextReport } from '../../engine/binding.ts';

export interface StoredStatistics {
  plan: RenderPlan | null;
  text: TextReport | null;
  steps: StepStatistics[];
  /** Indexes of steps that were the first of their process. */
  firstSteps: number[];
  seconds: RenderStatistics['seconds'];
  mappedSteps: RenderStatistics['mappedSteps'];
}

type Layer = StepStatistics['layers'][number];
type Kind = Pick<Layer, 'partition' | 'dense' | 'reason'>;

const columns = ['density', 'selectedBlocks', 'tileUnionBlocks', 'attentionSeconds', 'routingSeconds'] as const;

interface Header {
  version: 1;
  rest: Omit<StoredStatistics, 'steps'>;
  steps: Omit<StepStatistics, 'layers'>[];
  /** Layers of each step, and heads of each layer. */
  layerCounts: number[];
  headCounts: number[];
  kinds: Kind[];
  /** Index into `kinds`, for each layer of each step. */
  kindOf: number[];
}

const largestBlobBytes = 256 * 1024 * 1024;

export function packStatistics(statistics: StoredStatistics): Uint8Array {
  const { steps, ...rest } = statistics;
  const layers = steps.flatMap((step) => step.layers);
  const kinds: Kind[] = [];
  const known = new Map<string, number>();
  const kindOf = layers.map(({ partition, dense, reason }) => {
    const key = JSON.stringify([partition, dense, reason]);
    const index = known.get(key) ?? kinds.push({ partition, dense, reason }) - 1;
    known.set(key, index);
    return index;
  });
  const header: Header = {
    version: 1,
    rest,
    steps: steps.map(({ layers: _layers, ...step }) => step),
    layerCounts: steps.map((step) => step.layers.length),
    headCounts: layers.map((layer) => layer.headDensity.length),
    kinds,
    kindOf,
  };
  const head = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(head.length);
  const planes = columns.map((column) => bytePlanes(layers.map((layer) => layer[column])));
  const heads = Buffer.from(layers.flatMap((layer) => layer.headDensity.map((density) => Math.round(255 * density))));
  return zstdCompressSync(Buffer.concat([length, head, ...planes, heads]));
}

/** Throws for a blob that is none of ours. */
export function unpackStatistics(blob: Uint8Array): StoredStatistics {
  const data = zstdDecompressSync(blob, { maxOutputLength: largestBlobBytes });
  const headBytes = data.readUInt32LE(0);
  const header = JSON.parse(data.toString('utf8', 4, 4 + headBytes)) as Header;
  const count = header.kindOf.length;
  let at = 4 + headBytes;
  const take = (bytes: number) => data.subarray(at, (at += bytes));
  const values = columns.map(() => fromBytePlanes(take(4 * count), count));
  const layers = header.kindOf.map((kind, index): Omit<Layer, 'layer'> => {
    const [density, selectedBlocks, tileUnionBlocks, attentionSeconds, routingSeconds] = values.map(
      (column) => column[index] as number,
    ) as [number, number, number, number, number];
    return {
      ...(header.kinds[kind] as Kind),
      density,
      selectedBlocks,
      tileUnionBlocks,
      attentionSeconds,
      routingSeconds,
      headDensity: [],
    };
  });
  for (const [index, layer] of layers.entries()) {
    layer.headDensity = [...take(header.headCounts[index] ?? 0)].map((byte) => byte / 255);
  }
  let next = 0;
  const steps = header.steps.map((step, index) => ({
    ...step,
    layers: layers
      .slice(next, (next += header.layerCounts[index] ?? 0))
      .map((layer, number): Layer => ({ layer: number, ...layer })),
  }));
  return { ...header.rest, steps };
}

/** Bytes of like weight side by side compress well; the lowest ten bits of each number are cleared. */
function bytePlanes(values: number[]): Buffer {
  const bits = new Uint32Array(new Float32Array(values).buffer);
  const planes = Buffer.alloc(4 * values.length);
  for (const [index, value] of bits.entries()) {
    // Round to nearest, without running over into the sign.
    const rounded = value < 0x7f7ffe00 ? (value + 0x200) & 0xfffffc00 : value & 0xfffffc00;
    for (let plane = 0; plane < 4; plane++) planes[plane * values.length + index] = (rounded >>> (8 * plane)) & 0xff;
  }
  return planes;
}

function fromBytePlanes(planes: Uint8Array, count: number): Float32Array {
  const bits = new Uint32Array(count);
  for (let index = 0; index < count; index++) {
    for (let plane = 0; plane < 4; plane++) {
      bits[index] = (bits[index] as number) | ((planes[plane * count + index] as number) << (8 * plane));
    }
  }
  return new Float32Array(bits.buffer);
}
