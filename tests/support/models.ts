/** A model folder without weights, for engines that need none. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export function writeModelFolder(folder: string, changes: Record<string, unknown> = {}): string {
  mkdirSync(folder, { recursive: true });
  const names = {
    dit: 'dit.safetensors',
    vae: 'vae.safetensors',
    textEncoder: 'text.safetensors',
    tokenizer: 'spiece.model',
  };
  for (const name of Object.values(names)) writeFileSync(join(folder, name), name);
  const model = {
    format: 'vmoba-model/1',
    id: 'test',
    name: 'Test',
    files: names,
    limits: { sideMultiple: 16, minSide: 16, maxTrainedSide: 64, minFrames: 5, maxTrainedFrames: 17 },
    ...changes,
  };
  writeFileSync(join(folder, 'model.json'), JSON.stringify(model));
  return folder;
}
