/** What one finished render (or a calibration) taught about this machine. */
import type { RenderPlan } from '../../../contract/plan.ts';
import type { RenderTimings } from '../render/take.ts';
import { mean, median, typicalSteps } from '../statistics/speedup.ts';
import type { StepStatistics } from '../../../contract/statistics.ts';

/** Seconds of a typical step, by kind of work. */
export interface StepCost {
  linears: number;
  /** Routing included. */
  attention: number;
  other: number;
}

export interface TimingSample {
  flops: RenderPlan['flops'];
  tokens: number;
  dense: StepCost | null;
  sparse: StepCost | null;
  /** Measured density of the sparse steps, null without any. */
  density: number | null;
  loadingSeconds: number;
  textSeconds: number;
  /** Null in a calibration, which decodes nothing. */
  decodeSeconds: number | null;
  /** Of the finished file. */
  clipBytes: number | null;
  /** Width × height × frames. */
  pixels: number;
  peakBytes: number;
}

export function timingSample(
  plan: RenderPlan,
  steps: StepStatistics[],
  firstSteps: ReadonlySet<number>,
  timings: RenderTimings,
  clip: { bytes: number; pixels: number } | null,
): TimingSample {
  const { dense, sparse } = typicalSteps(steps, firstSteps);
  return {
    flops: plan.flops,
    tokens: plan.tokens,
    dense: stepCost(dense),
    sparse: stepCost(sparse),
    density: mean(sparse.flatMap((step) => step.layers.map((layer) => layer.density))),
    loadingSeconds: timings.loading,
    textSeconds: timings.text,
    decodeSeconds: clip ? timings.decoding + timings.encoding : null,
    clipBytes: clip?.bytes ?? null,
    pixels: clip?.pixels ?? 0,
    peakBytes: Math.max(0, ...steps.map((step) => step.peakBytes)),
  };
}

function stepCost(steps: StepStatistics[]): StepCost | null {
  const of = (pick: (step: StepStatistics) => number) => median(steps.map(pick));
  const linears = of((step) => step.seconds.linears);
  const attention = of((step) => step.seconds.attention + step.seconds.routing);
  const other = of((step) => step.seconds.total - step.seconds.linears - step.seconds.attention - step.seconds.routing);
  return linears === null || attention === null || other === null ? null : { linears, attention, other };
}
