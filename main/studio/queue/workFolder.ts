/**
 * What a render keeps while it is under way: the sampler's checkpoint (written by the engine), a journal of what happened, and
 * maps. The journal is appended line by line and read up to its last whole line, so that statistics survive interruptions.
 */
import { randomBytes } from 'node:crypto';
import { appendFileSync, existsSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { RenderPlan, StepReport, TextReport } from '../../engine/binding.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { makeFolder } from '../files/folders.ts';
import type { Resumed } from '../render/take.ts';
import { dropTornEnd } from '../statistics/mapsFile.ts';

export type JournalEntry =
  | { kind: 'planned'; plan: RenderPlan }
  | { kind: 'text'; text: TextReport }
  | { kind: 'resumed'; resumed: Resumed }
  | { kind: 'step'; report: StepReport; first: boolean };

export interface Journal {
  plan: RenderPlan | null;
  text: TextReport | null;
  /** In order, each step once. */
  steps: StepReport[];
  /** Steps that were the first of their process. */
  firstSteps: number[];
  /** Reasons why the clip may differ from an uninterrupted render in its last bits. */
  differences: string[];
}

export class WorkFolder {
  readonly folder: string;

  constructor(workFolder: string, renderId: string) {
    this.folder = join(workFolder, renderId);
  }

  get checkpoint(): string {
    return join(this.folder, 'checkpoint.safetensors');
  }

  get maps(): string {
    return join(this.folder, 'maps');
  }

  get #journal(): string {
    return join(this.folder, 'journal.jsonl');
  }

  async create(): Promise<void> {
    try {
      await makeFolder(this.folder);
      // What a full disk or an end tore must not swallow what comes next.
      if (existsSync(this.#journal)) appendFileSync(this.#journal, '\n');
      if (existsSync(this.maps)) dropTornEnd(this.maps);
    } catch (error) {
      throw fileFailure(error, `Creating ${this.folder}`);
    }
  }

  /** Out of the way at once, then gone. Errors: io. */
  async discard(): Promise<void> {
    if (!existsSync(this.folder)) return;
    const aside = `${this.folder}.${randomBytes(4).toString('hex')}.part`;
    try {
      renameSync(this.folder, aside);
    } catch (error) {
      throw fileFailure(error, `Clearing ${this.folder}`);
    }
    await rm(aside, { recursive: true, force: true });
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }

  /** Forgets what happened before: the render begins anew. Errors: io. */
  clear(): void {
    try {
      for (const path of [this.checkpoint, this.#journal, this.maps]) rmSync(path, { force: true });
    } catch (error) {
      throw fileFailure(error, `Clearing ${this.folder}`);
    }
  }

  append(entry: JournalEntry): void {
    try {
      appendFileSync(this.#journal, `${JSON.stringify(entry)}\n`);
    } catch (error) {
      throw fileFailure(error, `Writing ${this.#journal}`);
    }
  }

  /** @param stepsDone Steps that the checkpoint holds; later ones were lost and are done again. */
  read(stepsDone = Number.POSITIVE_INFINITY): Journal {
    const journal: Journal = { plan: null, text: null, steps: [], firstSteps: [], differences: [] };
    const steps = new Map<number, { report: StepReport; first: boolean }>();
    for (const entry of this.#entries()) {
      switch (entry.kind) {
        case 'planned':
          journal.plan = entry.plan;
          break;
        case 'text':
          journal.text = entry.text;
          break;
        case 'resumed':
          if (!entry.resumed.bitIdentical) journal.differences.push(entry.resumed.reason ?? 'resumed elsewhere');
          break;
        case 'step':
          steps.set(entry.report.step, { report: entry.report, first: entry.first });
          break;
      }
    }
    for (const [index, { report, first }] of [...steps].sort(([a], [b]) => a - b)) {
      if (index >= stepsDone) continue;
      journal.steps.push(report);
      if (first) journal.firstSteps.push(index);
    }
    return journal;
  }

  #entries(): JournalEntry[] {
    if (!existsSync(this.#journal)) return [];
    const entries: JournalEntry[] = [];
    for (const line of readFileSync(this.#journal, 'utf8').split('\n')) {
      try {
        if (line !== '') entries.push(JSON.parse(line) as JournalEntry);
      } catch {
        // A line torn by an interruption; what it told is done again.
      }
    }
    return entries;
  }
}
