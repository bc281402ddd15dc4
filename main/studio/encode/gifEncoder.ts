/** Animated GIF: a palette of its own for each frame, settings in a comment extension. */
import { open, type FileHandle, rm, stat } from 'node:fs/promises';
import { applyPalette, GIFEncoder, quantize } from './gifenc.ts';
import type { EncodedClip, EncodeOptions, Encoder } from './encoder.ts';
import { fileFailure } from '../files/fileFailure.ts';
import { moveIntoPlace, temporaryBeside } from '../files/temporary.ts';

export class GifEncoder implements Encoder {
  readonly #options: EncodeOptions;
  readonly #temporary: string;
  readonly #file: FileHandle;
  readonly #gif = GIFEncoder({ auto: false });
  readonly #rgba: Uint8Array;
  #frames = 0;

  private constructor(options: EncodeOptions, temporary: string, file: FileHandle) {
    this.#options = options;
    this.#temporary = temporary;
    this.#file = file;
    this.#rgba = new Uint8Array(options.width * options.height * 4).fill(255);
  }

  static async open(options: EncodeOptions): Promise<GifEncoder> {
    const temporary = temporaryBeside(options.path);
    try {
      const encoder = new GifEncoder(options, temporary, await open(temporary, 'wx'));
      encoder.#gif.writeHeader();
      return encoder;
    } catch (error) {
      throw fileFailure(error, `Creating ${options.path}`);
    }
  }

  async write(rgb: Uint8Array): Promise<void> {
    const { width, height, settings } = this.#options;
    const pixels = width * height;
    for (let at = 0; at < rgb.length; at += pixels * 3) {
      this.#toRgba(rgb, at);
      const palette = quantize(this.#rgba, 256);
      const indices = applyPalette(this.#rgba, palette);
      const first = this.#frames === 0;
      this.#gif.writeFrame(indices, width, height, { palette, delay: this.#delayMs(), first, repeat: 0 });
      if (first && settings !== undefined) this.#gif.stream.writeBytesView(commentExtension(settings));
      this.#frames++;
      await this.#flush();
    }
  }

  #toRgba(rgb: Uint8Array, at: number): void {
    const rgba = this.#rgba;
    for (let from = at, to = 0; to < rgba.length; from += 3, to += 4) {
      rgba[to] = rgb[from] as number;
      rgba[to + 1] = rgb[from + 1] as number;
      rgba[to + 2] = rgb[from + 2] as number;
    }
  }

  /** GIF counts hundredths of a second; rounding the running total keeps the clip's length. */
  #delayMs(): number {
    const until = (frames: number) => Math.round((frames * 100) / this.#options.fps);
    return 10 * (until(this.#frames + 1) - until(this.#frames));
  }

  async #flush(): Promise<void> {
    try {
      await this.#file.writeFile(this.#gif.stream.bytesView());
    } catch (error) {
      throw fileFailure(error, `Writing ${this.#options.path}`);
    }
    this.#gif.stream.reset();
  }

  async finish(): Promise<EncodedClip> {
    const { path, format, width, height, fps } = this.#options;
    try {
      this.#gif.finish();
      await this.#flush();
      await this.#file.close();
      await moveIntoPlace(this.#temporary, path);
    } catch (error) {
      await this.abort();
      throw fileFailure(error, `Writing ${path}`);
    }
    const { size } = await stat(path);
    return { path, format, width, height, frames: this.#frames, fps, bytes: size };
  }

  async abort(): Promise<void> {
    await this.#file.close().catch(() => {}); // already closed when moving it failed
    await rm(this.#temporary, { force: true });
  }
}

/** Text as a GIF comment: sub-blocks of at most 255 bytes of ASCII. */
function commentExtension(text: string): Uint8Array {
  const bytes = Buffer.from(asciiJson(text), 'latin1');
  const parts = [Buffer.from([0x21, 0xfe])];
  for (let at = 0; at < bytes.length; at += 255) {
    const block = bytes.subarray(at, at + 255);
    parts.push(Buffer.from([block.length]), block);
  }
  return Buffer.concat([...parts, Buffer.from([0])]);
}

/** The same JSON with everything beyond ASCII escaped. */
function asciiJson(json: string): string {
  return json.replace(/[\u0080-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
