/** A model folder without weights, for engines that need none. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './cli.ts';

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

/** A complete model with random weights, made by the native tool: what it renders is noise, everything else is real. */
export function makeRandomModel(folder: string, preset: 'tiny' | 'nano'): string {
  const tool = join(projectRoot, 'build/release/native/tools/vmoba-native');
  const tokenizer = join(projectRoot, 'tests/fixtures/tokenizer/spiece.model');
  execFileSync(tool, ['random-model', folder, '--preset', preset, '--tokenizer', tokenizer]);
  return folder;
}
