/** Looking at rendered frames. */

export type Rgb = [number, number, number];

/** Mean colour of what stands out from the frames' border, or null when too little does. RGB24, frame-major. */
export function colourOfThing(rgb: Uint8Array, width: number, height: number): Rgb | null {
  const at = (pixel: number): Rgb => [rgb[3 * pixel] ?? 0, rgb[3 * pixel + 1] ?? 0, rgb[3 * pixel + 2] ?? 0];
  const pixels = Array.from({ length: rgb.length / 3 }, (_, pixel) => pixel);
  const onBorder = (pixel: number) => {
    const x = pixel % width;
    const y = Math.floor(pixel / width) % height;
    return x < 3 || y < 3 || x >= width - 3 || y >= height - 3;
  };
  const ground = mean(pixels.filter(onBorder).map(at));
  const thing = pixels.map(at).filter((colour) => Math.hypot(...colour.map((v, i) => v - (ground[i] ?? 0))) > 90);
  return thing.length < pixels.length / 100 ? null : mean(thing);
}

function mean(colours: Rgb[]): Rgb {
  const sum = (channel: number) => colours.reduce((total, colour) => total + (colour[channel] ?? 0), 0);
  return [sum(0) / colours.length, sum(1) / colours.length, sum(2) / colours.length];
}

/** 0 to 360 degrees: red 0, green 120, blue 240. */
export function hueOf([r, g, b]: Rgb): number {
  return ((Math.atan2(Math.sqrt(3) * (g - b), 2 * r - g - b) * 180) / Math.PI + 360) % 360;
}
