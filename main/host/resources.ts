/** Files that come with the studio: in a checkout, or in a packaged application. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = checkoutRoot(dirname(fileURLToPath(import.meta.url)));
const packaged = (process as { resourcesPath?: string }).resourcesPath;

/** The model that needs no download. The path is returned also where nothing is there yet. */
export function embeddedModel(): string {
  return firstWith('model.json', packagedAt('models', 'nano'), join(root, 'resources', 'models', 'nano'));
}

/** Prompts with their clips to begin with, or what VMOBA_GALLERY names; the folder need not be there. */
export function galleryFolder(): string {
  const named = process.env['VMOBA_GALLERY'];
  if (named) return named;
  return firstWith('gallery.json', packagedAt('gallery'), join(root, 'resources', 'gallery'));
}

/** The app's picture, 512 pixels. */
export const iconFile = (): string =>
  join(firstWith('icon.png', packagedAt('icons'), join(root, 'resources', 'icons')), 'icon.png');

/** The built interface: index.html and what it needs. The folder need not be there. */
export const rendererFolder = (): string => join(root, 'out', 'renderer');

/** Of package.json. */
export function studioVersion(): string {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  return version;
}

function packagedAt(...names: string[]): string[] {
  return packaged ? [join(packaged, ...names)] : [];
}

function firstWith(file: string, first: string[], otherwise: string): string {
  return first.find((path) => existsSync(join(path, file))) ?? otherwise;
}

function checkoutRoot(folder: string): string {
  const above = dirname(folder);
  return above === folder || existsSync(join(folder, 'package.json')) ? folder : checkoutRoot(above);
}
