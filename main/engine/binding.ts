/**
 * The native addon, whole. Everything structured crosses as JSON text (parsed and bounded on the native side, typed
 * here); pixels cross as bytes. All compute of a process runs on one engine thread, so calls queue behind each other; only `cancel`
 * and `describe` act at once. Every rejection is an Error whose `code` is one of the native codes ("bad-request",
 * "bad-model-file", "cancelled", "out-of-memory", "io", "unsupported", "numerical-fault", "device-lost", "internal") and whose
 * `field` names the offending input where there is one.
 */
export interface NativeBinding {
  /** JSON of EngineDescription. */
  describe(): string;
  /** JSON of ModelInspection for one weight file, index, directory or model.json. */
  inspect(path: string): Promise<string>;
  /** Verification against reference fixtures; one JSON line per tensor through `onEvent`; resolves to a JSON summary. */
  verify(options: string, onEvent: (json: string) => void): Promise<string>;
  /** Benchmarks; progress lines through `onEvent`; resolves to JSON results. */
  bench(options: string, onEvent: (json: string) => void): Promise<string>;
  /** JSON of RenderPlan for a JSON SessionRequest, without loading weights. */
  plan(request: string): Promise<string>;
  /** Loads (or reuses) the model and validates the request. `onProgress` receives JSON of EngineProgress, at most ~20 a second. */
  openSession(request: string, onProgress: (json: string) => void): Promise<NativeSession>;
}

export interface NativeSession {
  /** Encodes prompt and negative prompt; JSON of TextReport. */
  encodeText(): Promise<string>;
  /** Advances exactly one denoising step. `options` is JSON of StepOptions. */
  step(options: string): Promise<NativeStep>;
  /** Writes the whole sampler state atomically (temporary file, fsync, rename); JSON {bytes, latentHash}. */
  saveCheckpoint(path: string): Promise<string>;
  /** Restores a state written by saveCheckpoint; JSON {step, bitIdentical, reason?}. Rejects for another request or model. */
  restoreCheckpoint(path: string): Promise<string>;
  /** 64-bit hash of the current latent, as 16 hex digits. */
  latentHash(): Promise<string>;
  /** Next run of decoded frames, or null after the last. The first call starts decoding. */
  decodeFrames(): Promise<NativeFrames | null>;
  /** Stops the running call within a second; it rejects with code "cancelled". The session stays usable at the last finished step. */
  cancel(): void;
  close(): Promise<void>;
}

export interface NativeStep {
  /** JSON of StepReport. */
  report: string;
  preview: NativeFrames | null;
  /** JSON header followed by float32 data of requested maps; null when none were requested. */
  maps: { header: string; data: Uint8Array } | null;
}

/** RGB24, frame-major, rows top to bottom, no padding. */
export interface NativeFrames {
  width: number;
  height: number;
  count: number;
  rgb: Uint8Array;
}

export interface EngineDescription {
  version: string;
  /** Hash of sources and compiler: a checkpoint of another build may not continue bit-identically. */
  build: string;
  oneDnn: string | null;
  threads: number;
  devices: DeviceDescription[];
}

export interface DeviceDescription {
  id: string; // "cpu", "cuda:0"
  name: string;
  kind: 'cpu' | 'cuda';
  usable: boolean;
  /** Why it cannot be used, and what to do about it. */
  reason: string | null;
  memoryBytes: number;
  instructionSet: string | null;
  precisions: Precision[];
}

export type Precision = 'f32' | 'bf16';
export type SchedulerName = 'unipc' | 'dpmpp' | 'euler';
export type PartitionName = '1d' | '2d' | '3d';

/** Attention policy, version 1: which layers and steps run dense or VMoBA, and how blocks are chosen. */
export interface AttentionPolicy {
  version: 1;
  name: string;
  /** "dense" ignores everything below except `name`. */
  mode: 'dense' | 'topk' | 'threshold';
  scope: 'query_head' | 'head_global' | 'overall' | 'block';
  semantics?: 'exact' | 'upstream';
  /** Threshold mode: cumulative-similarity share. */
  tau?: number;
  /** Top-k mode: share of a partition's blocks each query keeps (k = max(1, round(share * blocks))), or explicit k per partition. */
  kShare?: number;
  k?: Partial<Record<PartitionName, number>>;
  /** Block sizes in tokens: frames, [h, w], [t, h, w]. Missing ones are planned from the grid. */
  partitions?: { '1d'?: number; '2d'?: [number, number]; '3d'?: [number, number, number] };
  /** Partition of layer i = cycle[i mod cycle.length]. Default ["1d","2d","3d"]. */
  cycle?: PartitionName[];
  /** Leading steps that run dense: a share of all steps when < 1, else a count. */
  denseSteps?: number;
  denseLayers?: number[];
  /** Below this many tokens every layer runs dense. A model's own trained policy sets 0. */
  minimumTokens?: number;
}

export interface SessionRequest {
  /** Directory holding model.json, or path of a model.json. */
  model: string;
  prompt: string;
  negativePrompt: string;
  width: number;
  height: number;
  /** 4k+1 */
  frames: number;
  steps: number;
  guidanceScale: number;
  shift: number;
  scheduler: SchedulerName;
  /** Unsigned 64-bit, as decimal text. */
  seed: string;
  policy: AttentionPolicy;
  precision?: 'auto' | Precision;
  device?: string;
  threads?: number;
  memoryLimitBytes?: number;
  /** Skip the refusal when the plan exceeds the limit. */
  runAnyway?: boolean;
}

export interface RenderPlan {
  grid: [number, number, number];
  tokens: number;
  latentShape: [number, number, number, number];
  precision: Precision;
  /** Peak bytes by phase; the peak of a render is the largest. */
  memory: { weights: number; encoding: number; sampling: number; decoding: number; peak: number };
  weightsStreamed: boolean;
  decodeTiled: boolean;
  fitsLimit: boolean;
  /** Floating-point operations of one guided step (both branches), dense and under the policy (expected density). */
  flops: { linears: number; attentionDense: number; attentionPolicy: number; text: number; decode: number };
  partitions: { name: PartitionName; block: number[]; blocks: number; expectedDensity: number }[];
  warnings: string[];
}

export interface TextReport {
  tokens: number;
  truncated: boolean;
  /** Prompt words with the text rows they own: the keys of the word map. */
  words: { text: string; firstRow: number; rows: number }[];
  seconds: number;
}

export interface StepOptions {
  preview?: boolean;
  /** Ask for maps of one layer (block selection map, received attention) and for the word map. */
  maps?: { layer: number; head?: number; words?: boolean };
}

export interface StepReport {
  /** Index of the finished step, 0-based, and how many there are. */
  step: number;
  steps: number;
  timestep: number;
  sigma: number;
  seconds: { total: number; linears: number; attention: number; routing: number; other: number };
  /** Of the conditional branch. */
  layers: LayerReport[];
  /** Peak resident bytes of the process so far. */
  peakBytes: number;
  /** What the user should know since the last report, such as a fall-back to a smaller memory plan; absent when nothing. */
  notices?: string[];
}

export interface LayerReport {
  layer: number;
  partition: PartitionName | null;
  dense: boolean;
  /** Why this layer ran dense, in words; null when it ran sparse. */
  reason: string | null;
  density: number;
  selectedBlocks: number;
  tileUnionBlocks: number;
  attentionSeconds: number;
  routingSeconds: number;
  headDensity: number[];
}

export interface EngineProgress {
  phase: 'loading' | 'encoding' | 'sampling' | 'decoding';
  /** Within the phase, 0..1 */
  fraction: number;
  step?: number;
  layer?: number;
}

export interface ModelInspection {
  kind: 'wan-dit' | 'wan-vae' | 'umt5' | 'model' | 'unknown';
  naming: string;
  tensors: number;
  bytes: number;
  dtypes: Record<string, number>;
  config: Record<string, string | number | boolean>;
  warnings: string[];
}
