import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../../support/cli.ts';
import { ensureModel } from './model.ts';

// Playwright asks for a default export.
export default function globalSetup(): void {
  if (!existsSync(join(projectRoot, 'out/renderer/index.html')))
    throw new Error('The interface is not built: run npm run build:app first.');
  ensureModel();
}
