/** Plans, forecasts and estimates from settings, with the dimensions of a small model. */
import { type AttentionPolicy, policyPresets } from '../../../contract/attentionPolicy.ts';
import type { Estimate } from '../../../contract/estimates.ts';
import type { PolicyForecast, RenderPlan } from '../../../contract/plan.ts';
import type { RenderSettings } from '../../../contract/renderSettings.ts';

export const layers = 12;
const width = 256;
const flopsPerSecond = 60e9;

export function densityOf(policy: AttentionPolicy): number {
  if (policy.mode === 'dense') return 1;
  if (policy.mode === 'threshold') return Math.min(1, 0.06 + 0.52 * (policy.tau ?? 0.25));
  return Math.min(1, (policy.kShare ?? 0.25) + 0.02);
}

export function denseStepsOf(policy: AttentionPolicy, steps: number): number {
  if (policy.mode === 'dense') return steps;
  const { denseSteps = 0 } = policy;
  return Math.min(steps, denseSteps < 1 ? Math.ceil(denseSteps * steps) : denseSteps);
}

export function planOf(settings: RenderSettings): RenderPlan {
  const grid: [number, number, number] = [
    (settings.frames - 1) / 4 + 1,
    Math.ceil(settings.height / 16),
    Math.ceil(settings.width / 16),
  ];
  const [t, h, w] = grid;
  const tokens = t * h * w;
  const branches = settings.guidanceScale === 1 ? 1 : 2;
  const linears = branches * layers * tokens * 24 * width * width;
  const attentionDense = branches * layers * 4 * tokens * tokens * width;
  const expectedDensity = densityOf(settings.policy);
  const block = {
    '1d': [Math.max(1, Math.round(t / 7))],
    '2d': [Math.max(1, Math.round(h / 6)), Math.max(1, Math.round(w / 4))],
    '3d': [Math.max(1, Math.round(t / 3)), Math.max(1, Math.round(h / 6)), Math.max(1, Math.round(w / 4))],
  };
  const counts = {
    '1d': Math.ceil(t / (block['1d'][0] ?? 1)),
    '2d': Math.ceil(h / (block['2d'][0] ?? 1)) * Math.ceil(w / (block['2d'][1] ?? 1)),
    '3d':
      Math.ceil(t / (block['3d'][0] ?? 1)) *
      Math.ceil(h / (block['3d'][1] ?? 1)) *
      Math.ceil(w / (block['3d'][2] ?? 1)),
  };
  const sampling = 40e6 + tokens * width * 4 * 14;
  const decoding = settings.width * settings.height * 5 * 4 * 48;
  return {
    grid,
    tokens,
    latentShape: [16, t, h * 2, w * 2],
    precision: 'f32',
    memory: { weights: 18e6, encoding: 30e6, sampling, decoding, peak: 18e6 + Math.max(sampling, decoding) },
    weightsStreamed: false,
    decodeTiled: false,
    fitsLimit: 18e6 + Math.max(sampling, decoding) < (settings.memoryLimitBytes || 8e9),
    flops: {
      linears,
      attentionDense,
      attentionPolicy: attentionDense * expectedDensity,
      text: 2e9,
      decode: settings.width * settings.height * settings.frames * 9000,
    },
    partitions:
      settings.policy.mode === 'dense'
        ? []
        : (['1d', '2d', '3d'] as const).map((name) => ({
            name,
            block: block[name],
            blocks: counts[name],
            expectedDensity,
          })),
    warnings: [],
  };
}

export function forecast(settings: RenderSettings, policy: AttentionPolicy, description: string): PolicyForecast {
  const { flops } = planOf({ ...settings, policy });
  const dense = denseStepsOf(policy, settings.steps);
  const sparse = settings.steps - dense;
  const density = densityOf(policy);
  const work = settings.steps * flops.linears + (dense + sparse * density) * flops.attentionDense;
  return {
    name: policy.name,
    description,
    policy,
    expectedDensity: (dense + sparse * density) / settings.steps,
    flopSpeedup: (settings.steps * (flops.linears + flops.attentionDense)) / work,
    measuredSpeedup: null,
  };
}

export function dialOf(settings: RenderSettings): PolicyForecast[] {
  const sparse = [0.6, 0.4, 0.25, 0.175, 0.125].map((tau) =>
    forecast(
      settings,
      { ...policyPresets['vmoba-trained'], tau, name: tau === 0.25 ? 'vmoba-trained' : `vmoba-trained τ ${tau}` },
      tau === 0.25
        ? 'What this model was trained with.'
        : tau > 0.25
          ? 'Keeps more than it was trained with.'
          : 'Keeps less than it was trained with: detail may suffer.',
    ),
  );
  return [
    forecast(settings, policyPresets.dense, 'Every part of the picture sees every other: the reference.'),
    ...sparse,
  ];
}

export function estimateOf(settings: RenderSettings, samples: number, freeDiskBytes: number): Estimate {
  const plan = planOf(settings);
  const promised = forecast(settings, settings.policy, '');
  const sampling =
    (settings.steps * (plan.flops.linears + plan.flops.attentionDense)) / promised.flopSpeedup / flopsPerSecond;
  const phases = { loading: 0.2, text: 0.05, sampling, decoding: plan.flops.decode / flopsPerSecond };
  const diskBytes = Math.round(settings.width * settings.height * settings.frames * 0.05);
  const expected = phases.loading + phases.text + phases.sampling + phases.decoding;
  return {
    seconds: samples === 0 ? null : { low: expected * 0.85, expected, high: expected * 1.2 },
    basis: samples === 0 ? 'none' : 'history',
    samples,
    phases: samples === 0 ? null : phases,
    memoryBytes: plan.memory.peak,
    diskBytes,
    freeDiskBytes,
    fitsMemory: plan.fitsLimit,
    fitsDisk: diskBytes <= freeDiskBytes,
    plan,
    expectedDensity: promised.expectedDensity,
    flopSpeedup: promised.flopSpeedup,
    warnings: plan.warnings,
  };
}

/** Seconds of one step by kind of work, with a little of the noise real machines have. */
export function stepSeconds(plan: RenderPlan, density: number, step: number) {
  const noise = 1 + 0.03 * Math.sin(step * 2.3);
  const linears = (plan.flops.linears / flopsPerSecond) * noise;
  const attention = ((plan.flops.attentionDense * density) / flopsPerSecond) * noise * (density < 1 ? 1.15 : 1);
  const routing = density < 1 ? attention * 0.07 : 0;
  const other = linears * 0.12;
  return { total: linears + attention + routing + other, linears, attention, routing, other };
}
