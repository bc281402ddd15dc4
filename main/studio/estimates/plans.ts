/** Plans of requests, asked once: what does not change a plan (prompt, seed) is left out of the question. */
import type { RenderPlan } from '../../../contract/plan.ts';
import type { RenderRequest } from '../../../contract/renderRequest.ts';
import type { EngineHost } from '../engineHost.ts';

const keptPlans = 200;

export class PlanCache {
  readonly #engines: EngineHost;
  readonly #plans = new Map<string, Promise<RenderPlan>>();

  constructor(engines: EngineHost) {
    this.#engines = engines;
  }

  /** Errors: the engine's, with the field. */
  get({ fps: _fps, ...request }: RenderRequest): Promise<RenderPlan> {
    const question = { ...request, prompt: 'a', negativePrompt: '', seed: '0', runAnyway: true };
    const key = JSON.stringify(question);
    const known = this.#plans.get(key);
    if (known) return known;
    const plan = this.#engines.ask((engine) => engine.plan(question)) as Promise<RenderPlan>;
    this.#plans.set(key, plan);
    plan.catch(() => this.#plans.delete(key));
    if (this.#plans.size > keptPlans) this.#plans.delete(this.#plans.keys().next().value as string);
    return plan;
  }

  /** Models have changed. */
  forget(): void {
    this.#plans.clear();
  }
}
