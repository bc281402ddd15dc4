/** Files that come with the studio: in a checkout, or in a packaged application. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The model that needs no download. The path is returned also where nothing is there yet. */
export function embeddedModel(): string {
  const packaged = (process as { resourcesPath?: string }).resourcesPath;
  const candidates = [
    ...(packaged ? [join(packaged, 'models', 'nano')] : []),
    join(checkoutRoot(dirname(fileURLToPath(import.meta.url))), 'resources', 'models', 'nano'),
  ];
  return candidates.find((path) => existsSync(join(path, 'model.json'))) ?? (candidates.at(-1) as string);
}

function checkoutRoot(folder: string): string {
  const above = dirname(folder);
  return above === folder || existsSync(join(folder, 'package.json')) ? folder : checkoutRoot(above);
}
