/** Attention maps of one step and layer, as views on the bytes that came. */
import type { MapsHeader } from '../../contract/statistics.ts';

export interface AttentionMaps {
  step: number;
  layer: number;
  head: number;
  /** Token grid: frames, rows, columns. */
  grid: [number, number, number];
  /** Attention that each block of keys receives, [blocks]. */
  blockReceived: Float32Array | null;
  /** How often a block of queries (row) selects a block of keys (column), [blocks, blocks]. */
  selectionMap: { size: number; data: Float32Array } | null;
  /** Block of each token, [t, h, w]. */
  blockOfToken: Float32Array | null;
  /** Cross-attention mass of each word over tokens, [words, t, h, w]. */
  wordMass: { words: number; data: Float32Array } | null;
}

export function readMaps({ step, layer, head, grid, parts }: MapsHeader, data: Uint8Array): AttentionMaps {
  // Copied once where the bytes do not begin at a multiple of four.
  const aligned = data.byteOffset % 4 === 0 ? data : data.slice();
  const floats = new Float32Array(aligned.buffer, aligned.byteOffset, Math.floor(aligned.byteLength / 4));
  const part = (name: string) => {
    const found = parts.find((one) => one.name === name);
    if (!found) return null;
    const length = found.shape.reduce((product, size) => product * size, 1);
    return { shape: found.shape, data: floats.subarray(found.offset, found.offset + length) };
  };
  const selection = part('selectionMap');
  const words = part('wordMass');
  return {
    step,
    layer,
    head,
    grid,
    blockReceived: part('blockReceived')?.data ?? null,
    blockOfToken: part('blockOfToken')?.data ?? null,
    selectionMap: selection ? { size: selection.shape[0] ?? 0, data: selection.data } : null,
    wordMass: words ? { words: words.shape[0] ?? 0, data: words.data } : null,
  };
}

/** Per-token values of one frame [h, w] in 0..1 of the whole clip's largest: received attention of the token's block. */
export function receivedOfFrame(maps: AttentionMaps, frame: number): Float32Array | null {
  const { blockReceived, blockOfToken, grid } = maps;
  if (!blockReceived || !blockOfToken) return null;
  const [frames, rows, columns] = grid;
  const cells = rows * columns;
  const perToken = perTokenShare(maps);
  const largest = perToken.reduce((most, value) => Math.max(most, value), 0) || 1;
  const start = Math.min(frame, frames - 1) * cells;
  return Float32Array.from(
    { length: cells },
    (_, index) => (perToken[blockOfToken[start + index] ?? 0] ?? 0) / largest,
  );
}

/** Received mass of each block divided by its tokens, so that small last blocks are not shown as weak. */
function perTokenShare({ blockReceived, blockOfToken }: AttentionMaps): Float32Array {
  const received = blockReceived ?? new Float32Array();
  const tokens = new Float32Array(received.length);
  for (const block of blockOfToken ?? []) tokens[block] = (tokens[block] ?? 0) + 1;
  return received.map((mass, block) => mass / Math.max(1, tokens[block] ?? 1));
}

/** Where cross-attention uses a word in one frame [h, w], 0..1 of the whole clip's largest. */
export function wordOfFrame({ wordMass, grid }: AttentionMaps, word: number, frame: number): Float32Array | null {
  if (!wordMass || word >= wordMass.words) return null;
  const [frames, rows, columns] = grid;
  const cells = rows * columns;
  const whole = wordMass.data.subarray(word * frames * cells, (word + 1) * frames * cells);
  const largest = whole.reduce((most, value) => Math.max(most, value), 0) || 1;
  const smallest = whole.reduce((least, value) => Math.min(least, value), Infinity);
  const range = largest - smallest || 1;
  const start = Math.min(frame, frames - 1) * cells;
  return whole.slice(start, start + cells).map((value) => (value - smallest) / range);
}
