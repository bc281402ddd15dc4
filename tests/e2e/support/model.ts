/** The model that the tests render with: the trained one where it is in the tree, one of random weights otherwise. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../support/cli.ts';
import { makeRandomModel } from '../../support/models.ts';

const embedded = join(projectRoot, 'resources/models/nano');
export const standIn = join(projectRoot, 'build/demo/nano-random');
export const isTrained = existsSync(join(embedded, 'model.json'));

export function ensureModel(): void {
  if (!isTrained && !existsSync(join(standIn, 'model.json'))) makeRandomModel(standIn, 'nano');
}
