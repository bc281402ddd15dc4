/** Arithmetic of what a policy promises and what a render will take. Pure: everything comes in as arguments. */
import type { AttentionPolicy } from '../../../contract/attentionPolicy.ts';
import type { RenderPlan } from '../../../contract/plan.ts';
import type { TimingSample } from './timings.ts';

/** Steps that run dense from the beginning, as the engine counts them. */
export function denseStepCount(policy: AttentionPolicy, steps: number, tokens: number): number {
  if (policy.mode === 'dense' || tokens < (policy.minimumTokens ?? 0)) return steps;
  const { denseSteps = 0 } = policy;
  return Math.min(steps, denseSteps < 1 ? Math.ceil(denseSteps * steps - 1e-9) : Math.floor(denseSteps));
}

export interface Work {
  denseSteps: number;
  sparseSteps: number;
  /** Over all layers and steps. */
  expectedDensity: number;
  flopSpeedup: number;
}

export function workOf(plan: RenderPlan, policy: AttentionPolicy, steps: number): Work {
  const { linears, attentionDense, attentionPolicy } = plan.flops;
  const denseSteps = denseStepCount(policy, steps, plan.tokens);
  const sparseSteps = steps - denseSteps;
  const sparseDensity = attentionDense > 0 ? attentionPolicy / attentionDense : 1;
  const reference = steps * (linears + attentionDense);
  const asked = steps * linears + denseSteps * attentionDense + sparseSteps * attentionPolicy;
  return {
    denseSteps,
    sparseSteps,
    expectedDensity: (denseSteps + sparseSteps * sparseDensity) / steps,
    flopSpeedup: asked > 0 ? reference / asked : 1,
  };
}

export interface Phases {
  loading: number;
  text: number;
  sampling: number;
  decoding: number;
}

/** Block-sparse attention gets this share of the ideal where only dense steps have been seen. */
const assumedSparseEfficiency = 0.6;

/** What a sample says a render would take: its own seconds, scaled by work of each kind. */
export function predictFrom(sample: TimingSample, plan: RenderPlan, work: Work): Phases {
  const ratio = (wanted: number, seen: number) => (seen > 0 ? wanted / seen : 1);
  const linearsRatio = ratio(plan.flops.linears, sample.flops.linears);
  const tokensRatio = ratio(plan.tokens, sample.tokens);
  const attentionRatio = ratio(plan.flops.attentionDense, sample.flops.attentionDense);
  const base = sample.sparse ?? sample.dense;
  if (!base) return { loading: sample.loadingSeconds, text: sample.textSeconds, sampling: 0, decoding: 0 };
  const fixed = base.linears * linearsRatio + base.other * tokensRatio;
  const seenDensity = sample.density ?? 1;
  const denseAttention = sample.dense
    ? sample.dense.attention * attentionRatio
    : (base.attention * attentionRatio * assumedSparseEfficiency) / Math.max(seenDensity, 1e-3);
  const wantedDensity = plan.flops.attentionDense > 0 ? plan.flops.attentionPolicy / plan.flops.attentionDense : 1;
  const sparseAttention =
    sample.sparse && sample.density !== null
      ? sample.sparse.attention * attentionRatio * (wantedDensity / Math.max(sample.density, 1e-3))
      : Math.min(1, wantedDensity / assumedSparseEfficiency) * denseAttention;
  const sampling = work.denseSteps * (fixed + denseAttention) + work.sparseSteps * (fixed + sparseAttention);
  return {
    loading: sample.loadingSeconds,
    text: sample.textSeconds * ratio(plan.flops.text, sample.flops.text),
    sampling,
    decoding:
      sample.decodeSeconds === null
        ? // Decoding is about as good at its work as sampling at its linears.
          base.linears * ratio(plan.flops.decode, sample.flops.linears)
        : sample.decodeSeconds * ratio(plan.flops.decode, sample.flops.decode),
  };
}

export interface Interval {
  low: number;
  expected: number;
  high: number;
}

/**
 * The middle of what the samples say, and between which bounds four of five should lie. Few samples, and samples of other sizes
 * or models, say less.
 * @param distance How unlike the samples are: 0 the same, 1 a factor of e in tokens.
 */
export function intervalOf(totals: number[], distance: number, known: boolean): Interval | null {
  if (totals.length === 0) return null;
  const sorted = [...totals].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] as number;
  const expected = at(0.5);
  const slack = (known ? 0.1 : 0.4) + 0.25 * Math.min(2, distance) + 0.3 / Math.sqrt(sorted.length);
  return {
    low: Math.min(at(0.1), expected / (1 + slack)),
    expected,
    high: Math.max(at(0.9), expected * (1 + slack)),
  };
}
