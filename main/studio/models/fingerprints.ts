/** Fingerprints of models, made anew only when a file has changed: estimates ask for them with every keystroke. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type ModelCard, modelFingerprint } from '../render/modelCard.ts';
import { filesOf } from './modelFiles.ts';

export class Fingerprints {
  readonly #known = new Map<string, { stamp: string; fingerprint: string }>();

  /** Errors: bad-model-file. */
  async of(card: ModelCard): Promise<string> {
    const paths = [join(card.folder, 'model.json'), ...filesOf(card).map(({ path }) => path)];
    const facts = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)));
    const stamp = facts.map((fact) => (fact ? `${fact.size}:${fact.mtimeMs}` : '-')).join(';');
    const known = this.#known.get(card.folder);
    if (known?.stamp === stamp) return known.fingerprint;
    const fingerprint = await modelFingerprint(card);
    this.#known.set(card.folder, { stamp, fingerprint });
    return fingerprint;
  }
}
