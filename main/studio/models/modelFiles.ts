/** The files of a model, and readable ids for models. */
import { isAbsolute, join } from 'node:path';
import type { ModelCard } from '../render/modelCard.ts';

export function filesOf(card: ModelCard): { name: string; path: string }[] {
  return Object.values(card.files).map((name) => ({ name, path: isAbsolute(name) ? name : join(card.folder, name) }));
}

/** A readable id from any text. */
export function slug(text: string): string {
  const words = text
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, '-')
    .replace(/^[^a-z0-9]+|-+$/g, '')
    .slice(0, 80);
  return words || 'model';
}
