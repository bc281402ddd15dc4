/**
 * What the engine process can be asked, in types. `EngineMethods` are answered; the events named beside a method arrive while
 * it runs (for `open`: as long as the session lives). Sessions are known by number.
 */
import type {
  EngineDescription,
  EngineProgress,
  ModelInspection,
  NativeFrames,
  RenderPlan,
  SessionRequest,
  StepOptions,
  StepReport,
  TextReport,
} from './binding.ts';

export type SessionId = number;

export interface EngineMethods {
  describe(): EngineDescription;
  inspect(path: string): ModelInspection;
  /** Events: VerifyRow. */
  verify(options: VerifyOptions): VerifySummary;
  /** Events: one object per progress line. */
  bench(options: Record<string, unknown>): Record<string, unknown>;
  plan(request: SessionRequest): RenderPlan;
  /** Events: EngineProgress. */
  open(request: SessionRequest): SessionId;
  encodeText(session: SessionId): TextReport;
  step(session: SessionId, options: StepOptions): StepOutcome;
  saveCheckpoint(session: SessionId, path: string): SavedCheckpoint;
  restoreCheckpoint(session: SessionId, path: string): RestoredCheckpoint;
  latentHash(session: SessionId): string;
  decodeFrames(session: SessionId): NativeFrames | null;
  close(session: SessionId): void;
}

export interface EngineTells {
  /** The session's running call rejects with "cancelled" within a second. */
  cancel(session: SessionId): void;
  /** See lowerPriority in process/childHost.ts. */
  lowerPriority(nice: number): void;
}

export interface VerifyOptions {
  directory: string;
  device?: string;
  threads?: number;
}

/** One compared tensor. `error` and `tolerance` are as the fixtures define them for it. */
export interface VerifyRow {
  file: string;
  tensor: string;
  error: number;
  tolerance: number;
  pass: boolean;
  note: string;
}

export interface VerifySummary {
  compared: number;
  files: number;
  failed: number;
  seconds: number;
}

export interface StepOutcome {
  report: StepReport;
  preview: NativeFrames | null;
  /** Header and float32 data of requested maps. */
  maps: { header: unknown; data: Uint8Array } | null;
}

export interface SavedCheckpoint {
  bytes: number;
  latentHash: string;
}

export interface RestoredCheckpoint {
  /** Steps already done: the next `step` advances this index. */
  step: number;
  bitIdentical: boolean;
  /** Why the continuation may differ in the last bits; null when it does not. */
  reason: string | null;
}

export type { EngineProgress };
