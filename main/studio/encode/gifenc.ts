/**
 * gifenc with types. The package says that it is both kinds of module, but its CommonJS file has no names that Node's loader
 * finds, so it is required.
 */
import { createRequire } from 'node:module';

type Palette = number[][];

interface GifWriter {
  readonly stream: {
    reset(): void;
    bytesView(): Uint8Array;
    writeBytesView(bytes: Uint8Array): void;
  };
  writeHeader(): void;
  writeFrame(
    indices: Uint8Array,
    width: number,
    height: number,
    options: { palette: Palette; delay: number; first: boolean; repeat?: number },
  ): void;
  finish(): void;
}

interface Gifenc {
  GIFEncoder(options: { auto: boolean }): GifWriter;
  quantize(rgba: Uint8Array, colors: number): Palette;
  applyPalette(rgba: Uint8Array, palette: Palette): Uint8Array;
}

export const { GIFEncoder, quantize, applyPalette } = createRequire(import.meta.url)('gifenc') as Gifenc;
