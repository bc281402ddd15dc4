/** Installed models, what can be downloaded, and downloads under way. */
import type { StudioClient } from '../../contract/client.ts';
import type { CatalogueEntry, Download, Model } from '../../contract/models.ts';

export function createModels(client: StudioClient) {
  let items = $state.raw<Model[]>([]);
  let catalogue = $state.raw<CatalogueEntry[]>([]);
  let downloads = $state.raw<Download[]>([]);
  let verifying = $state.raw<Record<string, number>>({});

  const putDownload = (download: Download) => {
    const others = downloads.filter(({ id }) => id !== download.id);
    downloads = download.state === 'done' ? others : [...others, download].sort((a, b) => (a.id < b.id ? -1 : 1));
  };
  const ends = [
    client.on('models.changed', (event) => {
      items = event.items;
      void loadCatalogue().catch(() => {});
    }),
    client.on('models.download', putDownload),
    client.on('models.verifying', ({ id, fraction }) => (verifying = { ...verifying, [id]: fraction })),
  ];
  const loadCatalogue = async () => (catalogue = (await client.call('models.catalogue')).items);

  return {
    get items() {
      return items;
    },
    get catalogue() {
      return catalogue;
    },
    get downloads() {
      return downloads;
    },
    verifyingFraction: (id: string): number | null => verifying[id] ?? null,
    find: (id: string) => items.find((model) => model.id === id),
    async load() {
      items = (await client.call('models.list')).items;
    },
    async loadMore() {
      await loadCatalogue();
      downloads = (await client.call('models.downloads')).items;
    },
    async verify(id: string) {
      verifying = { ...verifying, [id]: 0 };
      try {
        return await client.call('models.verify', { id });
      } finally {
        const { [id]: _, ...others } = verifying;
        verifying = others;
      }
    },
    async download(catalogueId: string) {
      putDownload(await client.call('models.download', { catalogueId }));
    },
    async pauseDownload(id: string) {
      putDownload(await client.call('models.pauseDownload', { id }));
    },
    async cancelDownload(id: string) {
      await client.call('models.cancelDownload', { id });
      downloads = downloads.filter((download) => download.id !== id);
    },
    dispose: () => ends.forEach((end) => end()),
  };
}

export type ModelsState = ReturnType<typeof createModels>;
