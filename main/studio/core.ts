/** The parts of an open studio, put together once. Handlers get them all; the parts know only what they are given. */
import type { StudioError } from '../../contract/errors.ts';
import { EncodeClient } from './encode/encodeClient.ts';
import { EngineHost } from './engineHost.ts';
import { Estimator } from './estimates/estimator.ts';
import { PlanCache } from './estimates/plans.ts';
import type { EventHub } from './eventHub.ts';
import { Exports } from './export/exports.ts';
import { Gallery } from './gallery.ts';
import type { Library } from './library/libraryClient.ts';
import { catalogue } from './models/catalogue.ts';
import { Downloads } from './models/downloads.ts';
import { Fingerprints } from './models/fingerprints.ts';
import { InstalledModels } from './models/installedModels.ts';
import { fetchThroughProxy } from './models/proxyFetch.ts';
import { QueueRunner } from './queue/queueRunner.ts';
import { Requests } from './queue/requests.ts';
import { Watchers } from './queue/watchers.ts';
import { reconcile } from './reconcile.ts';
import type { StudioOptions } from './studio.ts';
import { Uploads } from './uploads.ts';

export interface Core {
  library: Library;
  events: EventHub;
  engines: EngineHost;
  encoder: EncodeClient;
  models: InstalledModels;
  downloads: Downloads;
  plans: PlanCache;
  estimator: Estimator;
  requests: Requests;
  queue: QueueRunner;
  watchers: Watchers;
  exports: Exports;
  uploads: Uploads;
  gallery: Gallery;
  notices: string[];
  close(): Promise<void>;
}

export interface OpenCoreOptions {
  /** Take in clips the database does not know. */
  adopt: boolean;
  /** Called when the queue finds the database damaged. */
  onCorrupt(error: StudioError): void;
}

/** Errors: io, disk-full. */
export async function openCore(
  library: Library,
  events: EventHub,
  options: StudioOptions,
  { adopt, onCorrupt }: OpenCoreOptions,
): Promise<Core> {
  const { publish } = events;
  const processes = { launch: options.launch };
  const engines = new EngineHost({ client: { ...processes, addon: options.addon }, publish });
  const encoder = new EncodeClient(processes);
  const fingerprints = new Fingerprints();
  const plans = new PlanCache(engines);
  const models = new InstalledModels({ library, engines, publish, fingerprints, onChange: () => plans.forget() });
  const estimator = new Estimator({ library, engines, plans, fingerprints });
  const requests = new Requests(library, models, plans);
  const watchers = new Watchers();
  const queue = new QueueRunner({
    library,
    engines,
    encoder,
    estimator,
    requests,
    watchers,
    publish,
    onCorrupt,
    spaceCheckMs: options.spaceCheckMs,
  });
  const downloads = new Downloads({
    library,
    models,
    publish,
    catalogue: options.catalogue ?? catalogue,
    fetch: options.fetch ?? fetchThroughProxy(),
    keepFreeBytes: async () => (await library.settings.get()).minimumFreeBytes,
    retry: options.downloadRetry,
    spaceCheckMs: options.spaceCheckMs,
  });
  await downloads.findUnfinished();
  const exports = new Exports({ library, publish, encoder: processes });
  const uploads = new Uploads(library.paths.uploads);
  const embedding = options.embeddedModel ? await models.embed(options.embeddedModel) : [];
  const reconciled = await reconcile({
    library,
    encoder,
    adopt,
    modelByFingerprint: (fingerprint) => models.byFingerprint(fingerprint),
  });
  return {
    library,
    events,
    engines,
    encoder,
    models,
    downloads,
    plans,
    estimator,
    requests,
    queue,
    watchers,
    exports,
    uploads,
    gallery: new Gallery(options.galleryFolder ?? null),
    notices: [...embedding, ...reconciled],
    async close() {
      await Promise.all([queue.close(), downloads.close(), exports.close(), uploads.close()]);
      await Promise.all([engines.close(), encoder.stop()]);
    },
  };
}
