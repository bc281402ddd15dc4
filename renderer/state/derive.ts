/** What Live shows, computed from a render's statistics. Pure, so that tests can hold it against the engine's own numbers. */
import type { RenderStatistics, StepStatistics } from '../../contract/statistics.ts';

export const isDenseStep = (step: StepStatistics): boolean => step.layers.every((layer) => layer.dense);

/** Mean density over the layers of one step. */
export const stepDensity = (step: StepStatistics): number =>
  step.layers.reduce((sum, layer) => sum + layer.density, 0) / Math.max(1, step.layers.length);

export interface DenseReason {
  reason: string;
  /** Whole steps that ran dense for it, as index ranges from 0. */
  steps: [first: number, last: number][];
  /** Layers that ran dense for it in steps that were otherwise sparse. */
  layers: number[];
}

/** Why dense: each reason once, with the steps and layers it explains. */
export function denseReasons(steps: StepStatistics[]): DenseReason[] {
  const reasons = new Map<string, { steps: Set<number>; layers: Set<number> }>();
  for (const step of steps) {
    const whole = isDenseStep(step);
    for (const { dense, reason, layer } of step.layers) {
      if (!dense) continue;
      const key = reason ?? '';
      const entry = reasons.get(key) ?? { steps: new Set(), layers: new Set() };
      reasons.set(key, entry);
      if (whole) entry.steps.add(step.step);
      else entry.layers.add(layer);
    }
  }
  return [...reasons].map(([reason, entry]) => ({
    reason,
    steps: ranges([...entry.steps]),
    layers: [...entry.layers].sort((a, b) => a - b),
  }));
}

export function ranges(numbers: number[]): [number, number][] {
  const result: [number, number][] = [];
  for (const value of [...numbers].sort((a, b) => a - b)) {
    const last = result.at(-1);
    if (last && value === last[1] + 1) last[1] = value;
    else result.push([value, value]);
  }
  return result;
}

/** The step's own speed-up against the dense step time the studio measured; null where there is none. */
export const stepSpeedup = (step: StepStatistics, { speedup }: RenderStatistics): number | null =>
  speedup.denseStepSeconds === null ? null : speedup.denseStepSeconds / step.seconds.total;

export const layerCount = (steps: StepStatistics[]): number =>
  steps.reduce((most, step) => Math.max(most, step.layers.length), 0);

/** Which share of a dense step's arithmetic is attention: why the arithmetic ceiling is where it is. */
export function attentionShare({ plan }: RenderStatistics): number | null {
  if (!plan) return null;
  const { linears, attentionDense } = plan.flops;
  return linears + attentionDense > 0 ? attentionDense / (linears + attentionDense) : null;
}
