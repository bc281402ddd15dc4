/** The policies on offer, and the dial between the reference and the fastest. */
import { type AttentionPolicy, policyPresets } from '../../../contract/attentionPolicy.ts';
import type { PolicyForecast, RenderPlan } from '../../../contract/plan.ts';
import type { RenderRequest } from '../../../contract/renderRequest.ts';
import type { ModelCard } from '../render/modelCard.ts';
import { workOf } from './forecast.ts';

export interface NamedPolicy {
  description: string;
  policy: AttentionPolicy;
}

const reference: NamedPolicy = {
  description: 'Every part of the picture sees every other: the reference.',
  policy: policyPresets.dense,
};

/** Dense, training-free, and the model's own where it was trained with one. */
export function namedPolicies(card: ModelCard): NamedPolicy[] {
  return [
    reference,
    {
      description:
        'For ordinary checkpoints: each query keeps its nearest blocks, the first quarter of the steps stays dense.',
      policy: policyPresets['vmoba-training-free'],
    },
    card.policy
      ? { description: 'What this model was trained with.', policy: card.policy }
      : {
          description: 'For checkpoints trained with VMoBA; on others the picture suffers.',
          policy: policyPresets['vmoba-trained'],
        },
  ];
}

/** τ below which only the own block is left; the trained value is in the middle of the dial. */
const trainedFactors = [2.4, 1.6, 1, 0.7, 0.5];
const freeShares = [0.5, 0.35, 0.25, 0.18, 0.12];

/**
 * From the reference to the fastest. A model trained with VMoBA varies its own threshold (or share); any other varies the
 * training-free policy.
 */
export function dial(card: ModelCard): NamedPolicy[] {
  const own = card.policy;
  if (own && own.mode !== 'dense') {
    const value = own.mode === 'threshold' ? (own.tau ?? 0.25) : (own.kShare ?? 0.25);
    const steps = trainedFactors.map((factor): NamedPolicy => {
      const changed = round(Math.min(0.95, value * factor));
      const policy =
        factor === 1
          ? own
          : own.mode === 'threshold'
            ? { ...own, name: `${own.name} τ ${changed}`, tau: changed }
            : { ...own, name: `${own.name} ${percent(changed)}`, kShare: changed, k: undefined };
      return {
        description:
          factor === 1
            ? 'What this model was trained with.'
            : own.mode === 'threshold'
              ? `Threshold τ ${changed}.`
              : `Keeps ${percent(changed)} of the blocks.`,
        policy: withoutUndefined(policy),
      };
    });
    return [reference, ...steps];
  }
  const base = policyPresets['vmoba-training-free'];
  return [
    reference,
    ...freeShares.map((share): NamedPolicy => {
      const description = `Keeps ${percent(share)} of the blocks after a dense first quarter.`;
      return share === base.kShare
        ? { description, policy: base }
        : { description, policy: { ...base, name: `${base.name} ${percent(share)}`, kShare: share } };
    }),
  ];
}

export function forecast(
  { description, policy }: NamedPolicy,
  plan: RenderPlan,
  request: RenderRequest,
  measuredSpeedup: number | null,
): PolicyForecast {
  const { expectedDensity, flopSpeedup } = workOf(plan, policy, request.steps);
  return { name: policy.name, description, policy, expectedDensity, flopSpeedup, measuredSpeedup };
}

/** Whether two policies ask for the same, names aside. */
export function samePolicy(a: AttentionPolicy, b: AttentionPolicy): boolean {
  if (a.mode === 'dense' && b.mode === 'dense') return true;
  const shape = ({ name: _name, ...rest }: AttentionPolicy) =>
    JSON.stringify(
      Object.entries(rest)
        .filter(([, value]) => value !== undefined)
        .sort(([x], [y]) => (x < y ? -1 : 1)),
    );
  return shape(a) === shape(b);
}

const round = (value: number) => Math.round(value * 1000) / 1000;
const percent = (share: number) => `${Math.round(share * 100)} %`;

function withoutUndefined(policy: AttentionPolicy): AttentionPolicy {
  return Object.fromEntries(Object.entries(policy).filter(([, value]) => value !== undefined)) as AttentionPolicy;
}
