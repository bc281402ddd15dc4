/** estimates.* and policies.* */
import { z } from 'zod';
import { type ErrorShape, StudioError, toErrorShape } from '../../../contract/errors.ts';
import type { HandlersOf } from '../../../contract/index.ts';
import { parseRequest } from '../../../contract/parse.ts';
import { renderSettings } from '../../../contract/renderSettings.ts';
import type { RenderSettings } from '../../../contract/renderSettings.ts';
import type { Core } from '../core.ts';
import { dial, forecast, namedPolicies, type NamedPolicy, samePolicy } from '../estimates/policies.ts';
import { workOf } from '../estimates/forecast.ts';
import type { CallContext } from './context.ts';

/** What settings of someone still typing can be short of, without the estimate being void. */
const standIns = { prompt: 'a', seed: '0' };

export function estimateHandlers(core: Core): HandlersOf<'estimates', CallContext> {
  const { requests, estimator, queue, engines, library } = core;
  return {
    'estimates.get': async ({ settings }) => {
      const problems: ErrorShape[] = [];
      const parsed = renderSettings.safeParse(settings);
      // Every field that is wrong is named, each once.
      const fields = new Set(parsed.success ? [] : parsed.error.issues.map((issue) => String(issue.path[0] ?? '')));
      if (!parsed.success) problems.push(...fieldProblems(settings, fields));
      const usable = { ...settings };
      for (const [field, value] of Object.entries(standIns)) if (fields.has(field)) usable[field] = value;
      try {
        const { request, card } = await requests.resolve(parseRequest(renderSettings, usable));
        return { problems, estimate: await estimator.estimate(request, card) };
      } catch (error) {
        if (!(error instanceof StudioError)) throw error;
        const shape = toErrorShape(error);
        if (!problems.some((problem) => problem.field === shape.field)) problems.push(shape);
        return { problems, estimate: null };
      }
    },
    'estimates.calibrate': async ({ settings }) => {
      if (queue.runningId !== null)
        throw new StudioError('conflict', 'A render is running: its steps will teach more.');
      const { request, card } = await requests.resolve(settings);
      const { engineNice } = await library.settings.get();
      return { stepSeconds: await estimator.calibrate(engines.renderer(engineNice), request, card) };
    },
  };
}

/** One problem for each field, in words. */
function fieldProblems(settings: Record<string, unknown>, fields: ReadonlySet<string>): ErrorShape[] {
  return [...fields].map((field) => {
    try {
      const schema = Object.hasOwn(renderSettings.shape, field)
        ? renderSettings.shape[field as keyof RenderSettings]
        : undefined;
      if (schema === undefined) return { code: 'bad-request', message: `${field} is not known.`, field };
      parseRequest(z.object({ [field]: schema }), { [field]: settings[field] });
    } catch (error) {
      return toErrorShape(error);
    }
    return { code: 'bad-request', message: `${field} is not valid.`, field };
  });
}

export function policyHandlers({ requests, estimator, plans }: Core): HandlersOf<'policies', CallContext> {
  async function forecastFor(settings: RenderSettings, named: NamedPolicy) {
    const { request, card } = await requests.resolve({ ...settings, policy: named.policy });
    const plan = await plans.get(request);
    const { linears: _linears, attentionDense, attentionPolicy } = plan.flops;
    const sparseDensity = attentionDense > 0 ? attentionPolicy / attentionDense : 1;
    const sparse = workOf(plan, named.policy, request.steps).sparseSteps > 0;
    const measured = sparse ? await estimator.measuredSpeedup(request, card, sparseDensity) : null;
    return forecast(named, plan, request, measured);
  }
  const all = (settings: RenderSettings, policies: NamedPolicy[]) =>
    Promise.all(policies.map((policy) => forecastFor(settings, policy)));
  return {
    'policies.list': async ({ settings }) => {
      const { card } = await requests.resolve(settings);
      return { items: await all(settings, namedPolicies(card)) };
    },
    'policies.dial': async ({ settings }) => {
      const { card } = await requests.resolve(settings);
      const steps = dial(card);
      const current = steps.findIndex(({ policy }) => samePolicy(policy, settings.policy));
      return { items: await all(settings, steps), current: current < 0 ? null : current };
    },
    'policies.forecast': ({ settings, policy }) => forecastFor(settings, { policy, description: '' }),
  };
}
