/** Progress of the running render, from what it tells. */
import type { RenderPhase, RenderProgress } from '../../../contract/renders.ts';
import { median } from '../statistics/speedup.ts';
import type { RenderEvent } from '../render/take.ts';

/** Where each phase begins on the way from 0 to 1; sampling is nearly everything. */
const phaseStart: Record<RenderPhase, number> = {
  loading: 0,
  encoding: 0.02,
  sampling: 0.04,
  decoding: 0.85,
  muxing: 0.98,
};
const recentSteps = 8;

export class LiveRender {
  readonly id: string;
  readonly #steps: number;
  /** Expected seconds of decoding, from estimates; null when unknown. */
  readonly #decodeSeconds: number | null;
  readonly #stepSeconds: number[] = [];
  #phase: RenderPhase = 'loading';
  #within = 0;
  #step = 0;
  #layer: number | null = null;
  #decodingSince = 0;

  constructor(id: string, steps: number, stepsDone: number, decodeSeconds: number | null) {
    this.id = id;
    this.#steps = steps;
    this.#step = stepsDone;
    this.#decodeSeconds = decodeSeconds;
  }

  /** The step being worked on. */
  get step(): number {
    return this.#step;
  }

  get phase(): RenderPhase {
    return this.#phase;
  }

  /** Returns whether the phase changed. */
  take(event: RenderEvent): boolean {
    const before = this.#phase;
    switch (event.kind) {
      case 'progress':
        // Progress of a step that has been reported as finished meanwhile says nothing new.
        if (
          event.progress.phase === 'sampling' &&
          event.progress.step !== undefined &&
          event.progress.step < this.#step
        )
          break;
        this.#enter(event.progress.phase);
        this.#within = event.progress.fraction;
        this.#layer = event.progress.layer ?? null;
        break;
      case 'text':
        this.#enter('sampling');
        break;
      case 'resumed':
        this.#step = event.resumed.fromStep;
        break;
      case 'checkpoint-refused':
        this.#step = 0;
        break;
      case 'step':
        this.#step = event.report.step + 1;
        this.#within = this.#step / this.#steps;
        this.#layer = null;
        this.#stepSeconds.push(event.report.seconds.total);
        break;
      case 'frames':
        this.#enter('decoding');
        this.#within = event.frames / event.of;
        if (event.frames === event.of) this.#enter('muxing');
        break;
      case 'planned':
      case 'checkpoint':
      case 'encoded':
        break;
    }
    return this.#phase !== before;
  }

  progress(): Omit<RenderProgress, 'pausing'> {
    const order = Object.keys(phaseStart) as RenderPhase[];
    const next = order[order.indexOf(this.#phase) + 1];
    const from = phaseStart[this.#phase];
    const to = next === undefined ? 1 : phaseStart[next];
    return {
      phase: this.#phase,
      fraction: from + (to - from) * Math.min(1, Math.max(0, this.#within)),
      step: this.#step,
      steps: this.#steps,
      layer: this.#layer,
      etaSeconds: this.#eta(),
    };
  }

  #enter(phase: RenderPhase): void {
    const order = Object.keys(phaseStart);
    if (order.indexOf(phase) <= order.indexOf(this.#phase)) return;
    this.#phase = phase;
    this.#within = 0;
    if (phase === 'decoding') this.#decodingSince = performance.now();
  }

  #eta(): number | null {
    if (this.#phase === 'decoding' || this.#phase === 'muxing') {
      if (this.#within === 0) return this.#decodeSeconds;
      const spent = (performance.now() - this.#decodingSince) / 1000;
      return Math.max(0, spent / this.#within - spent);
    }
    // The first step of a process is slower than those that follow.
    const warm = this.#stepSeconds.length > 1 ? this.#stepSeconds.slice(1) : this.#stepSeconds;
    const step = median(warm.slice(-recentSteps));
    if (step === null || this.#phase !== 'sampling') return null;
    const left = this.#steps - this.#within * this.#steps;
    return Math.max(0, left) * step + (this.#decodeSeconds ?? 0);
  }
}
