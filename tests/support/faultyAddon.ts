/**
 * An engine that misbehaves on demand, for what the real one cannot be asked to do: crash, hang, be slow. The prompt says
 * which. Its "latent" is a hash chain over the request, so an interrupted and resumed render can be told from a wrong one.
 */
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { NativeBinding, NativeSession, SessionRequest, StepReport } from '../../main/engine/binding.ts';

const failure = (code: string, message: string, field?: string) => Object.assign(new Error(message), { code, field });

const hash = (text: string) => createHash('sha256').update(text).digest('hex').slice(0, 16);

function openSession(request: SessionRequest, onProgress: (json: string) => void): NativeSession {
  let step = 0;
  let latent = hash(JSON.stringify(request));
  let cancelled = false;
  let framesLeft = request.frames;
  const progress = (phase: string, fraction: number) => onProgress(JSON.stringify({ phase, fraction, step }));
  const words = request.prompt;
  return {
    encodeText: async () => JSON.stringify({ tokens: 3, truncated: false, words: [], seconds: 0 }),
    async step() {
      if (words.includes(`crash at ${step}`)) {
        console.error('fatal: planted fault');
        process.kill(process.pid, 'SIGSEGV');
        await delay(60_000);
      }
      if (words.includes(`hang at ${step}`)) await delay(600_000);
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
        layers: [],
        peakBytes: 1e6,
      };
      return { report: JSON.stringify(report), preview: null, maps: null };
    },
    saveCheckpoint: async (path) => {
      writeFileSync(path, JSON.stringify({ step, latent }));
      return JSON.stringify({ bytes: 30, latentHash: latent });
    },
    restoreCheckpoint: async (path) => {
      ({ step, latent } = JSON.parse(readFileSync(path, 'utf8')));
      return JSON.stringify({ step, bitIdentical: true, reason: null });
    },
    latentHash: () => latent,
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

const binding: NativeBinding = {
  describe: () =>
    JSON.stringify({ version: '0', build: 'faulty', oneDnn: null, threads: 1, devices: [], pid: process.pid }),
  inspect: async (path) => {
    throw failure('bad-model-file', `${path}: header: longer than the file`, 'model');
  },
  verify: async (_, onEvent) => {
    onEvent(JSON.stringify({ file: 'a', tensor: 'b', error: 0, tolerance: 1, pass: true, note: '' }));
    return JSON.stringify({ compared: 1, files: 1, failed: 0, seconds: 0 });
  },
  bench: async () => '{}',
  plan: async () => JSON.stringify({ warnings: [] }),
  openSession: async (request, onProgress) => openSession(JSON.parse(request) as SessionRequest, onProgress),
};

export default binding;
