/**
 * The encoder process as the studio sees it: clips are written and read in a supervised process of their own, which starts
 * with the first use and ends with `stop`.
 */
import { forkEntry } from '../../engine/process/forkEntry.ts';
import { type LaunchProcess, launchWithNode } from '../../engine/process/launch.ts';
import { SupervisedProcess } from '../../engine/process/supervisedProcess.ts';
import type { EncodedClip, EncodeOptions, Encoder } from './encoder.ts';
import type { TranscodeOptions } from './transcode.ts';

/** What the encoder process answers; clips are known by number. */
export interface EncodeMethods {
  open(options: EncodeOptions): number;
  write(clip: number, rgb: Uint8Array): void;
  finish(clip: number): EncodedClip;
  abort(clip: number): void;
  readComment(path: string, name?: string): string | null;
  /** Events: the number of frames done. */
  transcode(options: TranscodeOptions): EncodedClip;
  extractFrame(source: string, frame: number, path: string): void;
}

export interface EncodeClientOptions {
  launch?: LaunchProcess;
  /** Longest silence of a call: one run of frames, or completing the file. */
  silenceLimitMs?: number;
}

const defaultSilenceLimitMs = 5 * 60_000;

export class EncodeClient {
  readonly #options: EncodeClientOptions;
  #process: SupervisedProcess | undefined;

  constructor(options: EncodeClientOptions = {}) {
    this.#options = options;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Starts the process ahead of its first use, which then does not wait for it. */
  start(): void {
    this.#running();
  }

  /** Starts a clip. Errors of its methods beside the encoder's own: encoder-crashed, encoder-hung, encoder-stopped. */
  async open(options: EncodeOptions): Promise<Encoder> {
    const process = this.#running();
    const clip = await process.call<number>('open', [options]);
    return {
      write: (rgb) => process.call('write', [clip, rgb]),
      finish: () => process.call('finish', [clip]),
      abort: () => process.call('abort', [clip]),
    };
  }

  /** The comment text a clip carries, or null; see readComment.ts. */
  readComment(path: string, name?: string): Promise<string | null> {
    return this.#running().call('readComment', [path, name] satisfies Parameters<EncodeMethods['readComment']>);
  }

  /** Writes a clip again in another format, its settings included; see transcode.ts. */
  transcode(options: TranscodeOptions, onFrame: (frames: number) => void = () => {}): Promise<EncodedClip> {
    return this.#running().call('transcode', [options] satisfies Parameters<EncodeMethods['transcode']>, {
      onEvent: onFrame,
    });
  }

  /** Writes one frame of a clip (from 0) as a PNG picture. */
  extractFrame(source: string, frame: number, path: string): Promise<void> {
    const args: Parameters<EncodeMethods['extractFrame']> = [source, frame, path];
    return this.#running().call('extractFrame', args);
  }

  /** Ends the process; unfinished clips leave nothing in place. */
  async stop(): Promise<void> {
    await this.#process?.stop();
    this.#process = undefined;
  }

  #running(): SupervisedProcess {
    if (!this.#process?.alive) {
      this.#process = new SupervisedProcess({
        name: 'encoder',
        launch: this.#options.launch ?? launchWithNode,
        entry: forkEntry(import.meta.url, './encodeProcess.ts'),
        silenceLimitMs: this.#options.silenceLimitMs ?? defaultSilenceLimitMs,
      });
    }
    return this.#process;
  }
}
