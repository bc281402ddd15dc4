/** From settings a client gave to a request the engine takes: the model's folder for its id, the studio's settings for what was left open. */
import type { RenderRequest } from '../../../contract/renderRequest.ts';
import type { RenderSettings } from '../../../contract/renderSettings.ts';
import type { PlanCache } from '../estimates/plans.ts';
import type { Library } from '../library/libraryClient.ts';
import type { InstalledModels } from '../models/installedModels.ts';
import { checkRequest, outsideTrainedRange } from '../render/checkRequest.ts';
import type { ModelCard } from '../render/modelCard.ts';

export interface ResolvedRequest {
  request: RenderRequest;
  card: ModelCard;
}

export class Requests {
  readonly #library: Library;
  readonly #models: InstalledModels;
  readonly #plans: PlanCache;

  constructor(library: Library, models: InstalledModels, plans: PlanCache) {
    this.#library = library;
    this.#models = models;
    this.#plans = plans;
  }

  /** Errors: not-found (model), bad-model-file, bad-request with the field. */
  async resolve(settings: RenderSettings): Promise<ResolvedRequest> {
    const studio = await this.#library.settings.get();
    const { folder } = await this.#library.models.get(settings.model);
    const open = {
      device: settings.device ?? studio.device ?? undefined,
      threads: settings.threads ?? (studio.threads || undefined),
      memoryLimitBytes: settings.memoryLimitBytes ?? studio.memoryLimitBytes ?? undefined,
    };
    const given = Object.fromEntries(Object.entries(open).filter(([, value]) => value !== undefined));
    return checkRequest({ ...settings, ...given, model: folder });
  }

  /** Everything that can be said before rendering; the engine looks at it too. Returns warnings. Errors: as `resolve`, and the engine's. */
  async check(settings: RenderSettings): Promise<string[]> {
    const { request, card } = await this.resolve(settings);
    const plan = await this.#plans.get(request);
    return [...outsideTrainedRange(request, card), ...plan.warnings];
  }

  card(modelId: string): Promise<ModelCard> {
    return this.#models.card(modelId);
  }
}
