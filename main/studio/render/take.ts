/** What is known of a finished render, and what is told while one runs. */
import type { NativeFrames, RenderPlan, StepReport, TextReport } from '../../engine/binding.ts';
import type { EngineProgress, StepOutcome } from '../../engine/protocol.ts';
import type { EncodedClip } from '../encode/encoder.ts';
import type { RawClip } from './rawFrames.ts';

/** A finished file, or plain frames. */
export type WrittenClip = EncodedClip | RawClip;

/** Wall-clock seconds by phase. Decoding and encoding overlap: `encoding` is what was waited for beyond decoding. */
export interface RenderTimings {
  loading: number;
  text: number;
  sampling: number;
  decoding: number;
  encoding: number;
  total: number;
}

export interface Take {
  clip: WrittenClip;
  /** 64-bit hash of the final latent, 16 hex digits. */
  latentHash: string;
  /** SHA-256 of all frames as RGB24, hex. */
  framesHash: string;
  timings: RenderTimings;
  /** Peak resident bytes of the engine process. */
  peakBytes: number;
  /** Of the steps done in this run; a resumed render has the earlier ones in its earlier run. */
  steps: StepReport[];
  plan: RenderPlan;
  /** Where this run took over, null when it began at the beginning. */
  resumed: Resumed | null;
}

export interface Resumed {
  fromStep: number;
  bitIdentical: boolean;
  /** Why the result may differ in the last bits from an uninterrupted run. */
  reason: string | null;
}

export type RenderOutcome =
  | { state: 'done'; take: Take }
  /** Stopped after a step on request; the checkpoint holds everything. */
  | { state: 'paused'; step: number };

export type RenderEvent =
  | { kind: 'planned'; plan: RenderPlan; warnings: string[] }
  | { kind: 'progress'; progress: EngineProgress }
  | { kind: 'text'; text: TextReport }
  | { kind: 'resumed'; resumed: Resumed }
  /** What was there to continue from cannot be used: the render begins anew. */
  | { kind: 'checkpoint-refused'; reason: string }
  | { kind: 'step'; report: StepReport; preview: NativeFrames | null; maps: StepOutcome['maps'] }
  /** Written, durable and in place. */
  | { kind: 'checkpoint'; step: number; bytes: number; latentHash: string }
  | { kind: 'frames'; frames: number; of: number }
  /** The clip is complete and in its place. */
  | { kind: 'encoded'; clip: WrittenClip };
