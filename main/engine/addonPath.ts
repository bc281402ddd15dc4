/** Where the native addon lies: named by VMOBA_ADDON, inside the packaged application, or in the build folder of a checkout. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const inCheckout = join('build', 'release', 'native', 'addon', 'vmoba.node');

export function addonPath(): string {
  const named = process.env['VMOBA_ADDON'];
  if (named) return named;
  const resources = (process as { resourcesPath?: string }).resourcesPath;
  const candidates = [
    ...(resources ? [join(resources, 'native', 'vmoba.node')] : []),
    ...ancestors(dirname(fileURLToPath(import.meta.url))).map((folder) => join(folder, inCheckout)),
  ];
  const found = candidates.find((path) => existsSync(path));
  if (!found) throw new Error(`the native engine is not built (no ${inCheckout}): run npm run build:native`);
  return found;
}

function ancestors(folder: string): string[] {
  const above = dirname(folder);
  return above === folder ? [folder] : [folder, ...ancestors(above)];
}
