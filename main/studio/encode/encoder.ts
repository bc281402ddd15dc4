/** Writing a clip frame by frame. Nothing here holds more than a few frames. */
import type { ClipFormat } from './formats.ts';

export interface EncodeOptions {
  format: ClipFormat;
  /** Where the clip goes: a file, or a folder for a PNG sequence. It appears there only when it is complete. */
  path: string;
  width: number;
  height: number;
  /** Frames per second, 1 to 240. */
  fps: number;
  /** Constant rate factor; the format's default when absent. */
  rateFactor?: number;
  /** JSON text kept in the file's metadata; see settings.ts. */
  settings?: string;
}

/** A finished file. */
export interface EncodedClip {
  path: string;
  format: ClipFormat;
  /** Of the stored picture: odd sides are padded where the format wants even ones. */
  width: number;
  height: number;
  frames: number;
  fps: number;
  bytes: number;
}

export interface Encoder<Clip = EncodedClip> {
  /** Appends whole frames: RGB24, frame-major, rows top to bottom, no padding. Errors: disk-full, io. */
  write(rgb: Uint8Array): Promise<void>;
  /** Completes the file and moves it into place. */
  finish(): Promise<Clip>;
  /** Gives up and removes what was written. */
  abort(): Promise<void>;
}
