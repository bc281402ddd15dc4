/**
 * An engine that misbehaves on demand, for what the real one cannot be asked to do: crash, hang, be slow. The prompt says
 * which. Its "latent" is a hash chain over the request, so an interrupted and resumed render can be told from a wrong one.
 */
import { createHash } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type {
  EngineDescription,
  NativeBinding,
  NativeSession,
  RenderPlan,
  SessionRequest,
  StepReport,
} from '../../main/engine/binding.ts';

const failure = (code: string, message: string, field?: string) => Object.assign(new Error(message), { code, field });

const hash = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 16);

function openSession(request: SessionRequest, onProgress: (json: string) => void): NativeSession {
  let step = 0;
  // What does not change the picture is no part of what a checkpoint belongs to.
  const { memoryLimitBytes: _limit, runAnyway: _run, ...identity } = request;
  const belongsTo = hash(JSON.stringify(identity));
  let latent = belongsTo;
  let cancelled = false;
  let framesLeft = request.frames;
  const progress = (phase: string, fraction: number) => onProgress(JSON.stringify({ phase, fraction, step }));
  const words = request.prompt;
  return {
    encodeText: async () => JSON.stringify({ tokens: 3, truncated: false, words: [], seconds: 0 }),
    async step(options) {
      if (words.includes(`crash at ${step}`)) {
        console.error('fatal: planted fault');
        process.kill(process.pid, 'SIGSEGV');
        await delay(60_000);
      }
      if (words.includes(`hang at ${step}`)) await delay(600_000);
      if (words.includes(`fail at ${step}`)) throw failure('numerical-fault', 'the latent is not finite');
      cancelled = false;
      const parts = words.includes('very slow') ? 600 : words.includes('slow') ? 100 : 2;
      for (let part = 0; part < parts; part++) {
        await delay(5);
        progress('sampling', part / parts);
        if (cancelled) throw failure('cancelled', 'stopped on request');
      }
      latent = hash(latent);
      const report: StepReport = {
        step: step++,
        steps: request.steps,
        timestep: 0,
        sigma: 0,
        seconds: { total: 0.01, linears: 0.004, attention: 0.004, routing: 0.001, other: 0.001 },
        layers: [0, 1].map((layer) => ({
          layer,
          partition: (['1d', '2d'] as const)[layer] ?? null,
          dense: request.policy.mode === 'dense',
          reason: request.policy.mode === 'dense' ? 'the policy is dense' : null,
          density: request.policy.mode === 'dense' ? 1 : 0.25,
          selectedBlocks: 2,
          tileUnionBlocks: 3,
          attentionSeconds: 0.002,
          routingSeconds: 0.0005,
          headDensity: [0.2, 0.3],
        })),
        peakBytes: 1e6,
      };
      const { preview, maps } = JSON.parse(options) as { preview?: boolean; maps?: { layer: number; head?: number } };
      return {
        report: JSON.stringify(report),
        preview: preview ? { width: 4, height: 2, count: 2, rgb: new Uint8Array(48).fill(step) } : null,
        maps: maps ? mapsOf(report.step, maps) : null,
      };
    },
    saveCheckpoint: async (path) => {
      const data = JSON.stringify({ step, latent, belongsTo });
      writeFileSync(`${path}.new`, data);
      renameSync(`${path}.new`, path);
      return JSON.stringify({ bytes: data.length, latentHash: latent });
    },
    restoreCheckpoint: async (path) => {
      const bad = (reason: string) => failure('bad-request', `${path}: ${reason}`, 'checkpoint');
      let saved: { step: number; latent: string; belongsTo: string };
      try {
        saved = JSON.parse(readFileSync(path, 'utf8'));
      } catch {
        throw bad('is damaged');
      }
      if (saved.belongsTo !== belongsTo) throw bad('belongs to another render');
      ({ step, latent } = saved);
      return JSON.stringify({ step, bitIdentical: true, reason: null });
    },
    latentHash: async () => latent,
    decodeFrames: async () => {
      const count = Math.min(4, framesLeft);
      if (count === 0) return null;
      framesLeft -= count;
      const rgb = new Uint8Array(count * request.width * request.height * 3).fill(framesLeft * 7);
      return { width: request.width, height: request.height, count, rgb };
    },
    cancel: () => (cancelled = true),
    close: async () => {},
  };
}

const kinds = [
  ['dit.safetensors', 'wan-dit'],
  ['vae.safetensors', 'wan-vae'],
  ['text.safetensors', 'umt5'],
  ['model', 'model'],
] as const;

function mapsOf(step: number, { layer, head }: { layer: number; head?: number }) {
  const header = {
    step,
    layer,
    head: head ?? -1,
    grid: [1, 1, 2],
    parts: [
      { name: 'blockReceived', offset: 0, shape: [2] },
      { name: 'blockOfToken', offset: 2, shape: [1, 1, 2] },
    ],
  };
  return { header: JSON.stringify(header), data: new Uint8Array(new Float32Array([0.25, 0.75, 0, 1]).buffer) };
}

function planOf({ width, height, frames, steps, policy }: SessionRequest): RenderPlan {
  const grid: [number, number, number] = [(frames - 1) / 4 + 1, height / 16, width / 16];
  const tokens = grid[0] * grid[1] * grid[2];
  const attentionDense = 4e3 * tokens ** 2;
  return {
    grid,
    tokens,
    latentShape: [16, grid[0], height / 8, width / 8],
    precision: 'f32',
    memory: { weights: 1e6, encoding: 1e6, sampling: 2e6, decoding: 3e6, peak: 4e6 },
    weightsStreamed: false,
    decodeTiled: false,
    fitsLimit: true,
    flops: {
      linears: 1e5 * tokens,
      attentionDense,
      attentionPolicy: policy.mode === 'dense' ? attentionDense : 0.25 * attentionDense,
      text: 1e6,
      decode: 1e5 * tokens,
    },
    partitions: [{ name: '1d', block: [1], blocks: grid[0], expectedDensity: 0.25 }],
    warnings: steps > 500 ? ['that many steps take long'] : [],
  };
}

const binding: NativeBinding = {
  describe: () => {
    const description: EngineDescription = {
      version: '0',
      build: 'faulty',
      oneDnn: null,
      threads: 1,
      devices: [
        {
          id: 'cpu',
          name: 'Test CPU',
          kind: 'cpu',
          usable: true,
          reason: null,
          memoryBytes: 2 ** 33,
          instructionSet: 'none',
          precisions: ['f32'],
        },
      ],
    };
    return JSON.stringify(description);
  },
  inspect: async (path) => {
    if (path.includes('broken')) throw failure('bad-model-file', `${path}: header: longer than the file`, 'model');
    const kind = kinds.find(([ending]) => path.endsWith(ending))?.[1] ?? 'unknown';
    return JSON.stringify({ kind, naming: 'wan', tensors: 1, bytes: 1, dtypes: {}, config: {}, warnings: [] });
  },
  verify: async (_, onEvent) => {
    onEvent(JSON.stringify({ file: 'a', tensor: 'b', error: 0, tolerance: 1, pass: true, note: '' }));
    return JSON.stringify({ compared: 1, files: 1, failed: 0, seconds: 0 });
  },
  bench: async () => '{}',
  plan: async (json) => JSON.stringify(planOf(JSON.parse(json) as SessionRequest)),
  openSession: async (request, onProgress) => openSession(JSON.parse(request) as SessionRequest, onProgress),
};

export default binding;
