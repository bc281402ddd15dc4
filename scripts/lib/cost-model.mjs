/**
 * What the kernels of a transformer layer must move and compute at real sizes, against the limits of two GPUs. Arithmetic from
 * shapes and data sheets, not measurement: a kernel cannot be faster than the larger of its two times.
 * Model: Wan 1.3B, one guidance branch, bf16 activations, f32 residual stream. Bytes count each operand once per pass over it
 * in device memory (what a cache keeps in between is free); attention re-reads its keys per tile from the cache.
 */

/** Dense bf16 tensor FLOP/s with f32 sums, f32 FLOP/s of the scalar units, bytes/s of device memory: NVIDIA's data sheets. */
export const gpus = [
  { name: 'H200', tensor: 989e12, scalar: 67e12, memory: 4.8e12 },
  { name: 'RTX 4090', tensor: 165e12, scalar: 83e12, memory: 1.008e12 },
];

export const sizes = [
  { tokens: 32760, grid: '21×30×52', blocks: [7, 24, 72] },
  { tokens: 75600, grid: '21×45×80', blocks: [7, 40, 36] },
];

const dim = 1536;
const heads = 12;
const ffn = 8960;
const text = 512;
const bf16 = 2;
const f32 = 4;

const product = (name, m, k, n) => ({
  name,
  unit: 'tensor',
  flops: 2 * m * k * n,
  bytes: (m * k + k * n + m * n) * bf16,
});
const scalar = (name, flops, bytes) => ({ name, unit: 'scalar', flops, bytes });

/** Kernels of one layer with `blocks` blocks, and of one step around the layers. */
export function kernels({ tokens: s, blocks }) {
  const c = blocks.reduce((sum, count) => sum + count, 0) / blocks.length; // the cycle's mean
  const gates = s * c * heads;
  const chunks = Math.ceil(c / 6);
  const attention = (label, density) => ({
    name: `attention, ${label}`,
    unit: 'tensor',
    flops: 4 * s * s * dim * density,
    bytes: 4 * s * dim * bf16,
  });
  return [
    scalar('layer norm and modulation (each of 3)', 9 * s * dim, s * dim * (f32 + bf16)),
    product('q, k, v projection', s, dim, 3 * dim),
    scalar('RMS norm, RoPE, partition, split, block means', 14 * s * dim, 2 * 3 * s * dim * bf16),
    { name: 'gate', unit: 'tensor', flops: 3 * 2 * s * c * dim, bytes: s * dim * bf16 + gates * f32 }, // means as three bf16
    scalar('selection (two passes over the gates)', 8 * gates, 2 * gates * f32 + s * heads * Math.ceil(c / 32) * 4),
    scalar(
      'sorting rows by what they select of each six blocks',
      60 * s * heads * chunks,
      s * heads * (2 * Math.ceil(c / 32) * 4 + chunks * (3 * 4 + 1)),
    ),
    scalar('merging partial results (four a row)', 8 * s * dim, s * dim * bf16 * 5 + s * heads * chunks * 4),
    attention('dense', 1),
    attention('VMoBA at density .26', 0.26),
    attention('VMoBA at density .19', 0.19),
    product('output projection', s, dim, dim),
    scalar('gated add to the residual (each of 3)', 2 * s * dim, s * dim * (2 * f32 + bf16)),
    product('cross-attention q and output projections (each)', s, dim, dim),
    {
      name: `cross-attention over ${text} text rows`,
      unit: 'tensor',
      flops: 4 * s * text * dim,
      bytes: 2 * s * dim * bf16,
    },
    product('feed-forward up, with GELU', s, dim, ffn),
    product('feed-forward down', s, ffn, dim),
    // Guidance and estimate in passes that round as f32 does, corrector, predictor: 23 readings or writings of the latent.
    scalar('guidance, UniPC and search for NaN (once a step, not per layer)', 28 * s * 64, 23 * s * 64 * f32),
    scalar(
      'dequantising one layer of fp8 weights',
      4 * dim ** 2 * 2 + 2 * dim * ffn,
      (8 * dim ** 2 + 2 * dim * ffn) * 3,
    ),
    scalar('rounding activations to fp8 (before q, k, v; off by default)', 4 * s * dim, s * dim * (2 * bf16 + 1)),
  ];
}

/** One table of a size. Times are milliseconds; the binding limit is named. */
export function costTable(size) {
  const time = (kernel, gpu) => {
    const compute = kernel.flops / gpu[kernel.unit];
    const memory = kernel.bytes / gpu.memory;
    return `${number(Math.max(compute, memory) * 1e3)} ${compute > memory ? 'c' : 'm'}`;
  };
  return [
    ['kernel', 'GFLOP', 'MB', ...gpus.map((gpu) => `${gpu.name}, ms`)],
    ...kernels(size).map((kernel) => [
      kernel.name,
      number(kernel.flops / 1e9),
      number(kernel.bytes / 1e6),
      ...gpus.map((gpu) => time(kernel, gpu)),
    ]),
  ];
}

function number(value) {
  return value >= 100 ? String(Math.round(value)) : value >= 10 ? value.toFixed(1) : value.toPrecision(2);
}
