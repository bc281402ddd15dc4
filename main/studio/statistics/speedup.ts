/** The measured speed-up of sparse steps, and the arithmetic one beside it. */
import type { RenderPlan } from '../../../contract/plan.ts';
import type { Speedup, StepStatistics } from '../../../contract/statistics.ts';

export const isDense = (step: StepStatistics): boolean => step.layers.every((layer) => layer.dense);

export function median(values: number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

export function mean(values: number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/**
 * Typical seconds of dense and of sparse steps. The first step of a process packs weights and is left out where another one of
 * its kind can speak.
 * @param firstSteps Indexes of steps that were the first of their process.
 */
export function typicalSteps(
  steps: StepStatistics[],
  firstSteps: ReadonlySet<number>,
): { dense: StepStatistics[]; sparse: StepStatistics[] } {
  const ofKind = (dense: boolean) => {
    const all = steps.filter((step) => isDense(step) === dense);
    const warm = all.filter((step) => !firstSteps.has(step.step));
    return warm.length > 0 ? warm : all;
  };
  return { dense: ofKind(true), sparse: ofKind(false) };
}

export function meanDensity(steps: StepStatistics[]): number | null {
  return mean(steps.flatMap((step) => step.layers.map((layer) => layer.density)));
}

/** @param calibratedDenseSeconds A dense step of this model and size timed on this device, for renders without dense steps of their own. */
export function speedupOf(
  plan: RenderPlan | null,
  steps: StepStatistics[],
  firstSteps: ReadonlySet<number>,
  calibratedDenseSeconds: number | null,
): Speedup {
  const { dense, sparse } = typicalSteps(steps, firstSteps);
  const seconds = (some: StepStatistics[]) => median(some.map((step) => step.seconds.total));
  const own = seconds(dense);
  const denseStepSeconds = own ?? calibratedDenseSeconds;
  const sparseStepSeconds = seconds(sparse);
  const density = meanDensity(sparse);
  const flops = plan?.flops;
  return {
    measured: denseStepSeconds !== null && sparseStepSeconds ? denseStepSeconds / sparseStepSeconds : null,
    against: own !== null ? 'own-steps' : calibratedDenseSeconds !== null ? 'calibration' : null,
    denseStepSeconds,
    sparseStepSeconds,
    arithmetic:
      flops && density !== null
        ? (flops.linears + flops.attentionDense) / (flops.linears + flops.attentionDense * density)
        : null,
  };
}
