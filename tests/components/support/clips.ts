/** What the test's clips are, for the side that makes them and the side that plays them. */
export const clipFrames = { long: 21, short: 9 };
export type ClipName = keyof typeof clipFrames;
export const clipFps = 16;
export const clipSide = 64;

/** Grey of a frame, 0..255. */
export const brightnessOf = (frame: number): number => 20 + 10 * frame;
export const frameOfBrightness = (brightness: number): number => Math.round((brightness - 20) / 10);

declare module 'vitest' {
  interface ProvidedContext {
    /** The clips as data addresses. */
    clips: Record<ClipName, string>;
  }
}
