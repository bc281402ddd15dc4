/** Libraries full of renders and takes, written through the tables themselves. */
import type { StepStatistics } from '../../contract/statistics.ts';
import { renderSettings } from '../../contract/renderSettings.ts';
import type { LibraryPaths } from '../../main/studio/library/folder.ts';
import { openTables } from '../../main/studio/library/openLibrary.ts';
import { packStatistics } from '../../main/studio/statistics/blob.ts';
import { settings } from './studio.ts';

const scenes = ['on a café table', 'over the hills', 'at dawn'];

/** Every second render has a take. Returns the ids of the renders. */
export function fillLibrary(paths: LibraryPaths, renders: number, shape = { steps: 4, layers: 4, heads: 4 }): string[] {
  const { tables, close } = openTables(paths);
  const project = tables.projects.chosen(undefined);
  const statistics = packStatistics(statisticsOf(shape));
  const ids: string[] = [];
  for (let begin = 0; begin < renders; begin += 500) {
    const batch = Array.from({ length: Math.min(500, renders - begin) }, (_, index) => {
      const number = begin + index;
      const scene = scenes[number % scenes.length] ?? '';
      const prompt = number % 4 === 0 ? `A quick fox in cautious light, ${number}` : `A dog ${scene}, ${number}`;
      return renderSettings.parse(settings({ prompt, seed: String(number) }));
    });
    const inserted = tables.renders.insert(
      batch.map((chosen) => ({
        projectId: project.id,
        kind: 'final',
        settings: chosen,
        output: { format: 'mp4' },
        warnings: [],
      })),
      'last',
    );
    for (const [index, { id }] of inserted.entries()) {
      ids.push(id);
      if (index % 2 === 1) continue;
      tables.takes.finish({
        renderId: id,
        modelName: 'Test',
        file: `takes/${id}.mp4`,
        poster: `takes/${id}.png`,
        maps: null,
        clip: { format: 'mp4', width: 832, height: 480, frames: 81, fps: 16, bytes: 3_000_000 },
        latentHash: '0123456789abcdef',
        framesHash: 'f'.repeat(64),
        bitIdentical: true,
        differenceReason: null,
        renderSeconds: 100,
        peakBytes: 8e9,
        meanDensity: 0.25,
        speedup: { measured: 1.5, against: 'own-steps', denseStepSeconds: 3, sparseStepSeconds: 2, arithmetic: 1.8 },
        statistics,
      });
    }
  }
  close();
  return ids;
}

/** Statistics as a render of that shape leaves them, numbers by chance: they compress as badly as real ones. */
export function statisticsOf({ steps, layers, heads }: { steps: number; layers: number; heads: number }) {
  const step = (index: number): StepStatistics => ({
    step: index,
    steps,
    timestep: 1000 - (1000 * index) / steps,
    sigma: 1 - index / steps,
    seconds: {
      total: Math.random(),
      linears: Math.random(),
      attention: Math.random(),
      routing: Math.random(),
      other: Math.random(),
    },
    layers: Array.from({ length: layers }, (_, layer) => ({
      layer,
      partition: (['1d', '2d', '3d'] as const)[layer % 3] ?? null,
      dense: false,
      reason: null,
      density: Math.random(),
      selectedBlocks: 20 * Math.random(),
      tileUnionBlocks: 40 * Math.random(),
      attentionSeconds: Math.random(),
      routingSeconds: Math.random() / 50,
      headDensity: Array.from({ length: heads }, Math.random),
    })),
    peakBytes: 8e9,
  });
  return {
    plan: null,
    text: null,
    steps: Array.from({ length: steps }, (_, index) => step(index)),
    firstSteps: [0],
    seconds: { loading: 1, text: 1, sampling: 90, decoding: 7, encoding: 1, total: 100 },
    mappedSteps: [],
  };
}
