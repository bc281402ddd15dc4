/** Colour maps for heat maps, and colours of the theme for canvases. */

/** Magma at nine even places. */
const magma = ['#000004', '#1c1044', '#4f127b', '#812581', '#b5367a', '#e55964', '#fb8761', '#fec287', '#fcfdbf'].map(
  (hex): [number, number, number] => {
    const value = Number.parseInt(hex.slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  },
);

/** @param value 0..1; beyond is clamped. */
export function magmaAt(value: number): [number, number, number] {
  const place = Math.min(1, Math.max(0, value)) * (magma.length - 1);
  const index = Math.min(magma.length - 2, Math.floor(place));
  const share = place - index;
  const [low, high] = [magma[index], magma[index + 1]];
  if (!low || !high) return [0, 0, 0];
  return [0, 1, 2].map((channel) => Math.round((low[channel] ?? 0) * (1 - share) + (high[channel] ?? 0) * share)) as [
    number,
    number,
    number,
  ];
}

/** As CSS, for legends. */
export const magmaGradient = `linear-gradient(90deg, ${magma.map(([r, g, b]) => `rgb(${r} ${g} ${b})`).join(', ')})`;

/** Values in 0..1 as pixels, row by row. `alpha` says how opaque a value is, 0..1. */
export function heatPixels(
  values: ArrayLike<number>,
  width: number,
  height: number,
  alpha: (value: number) => number = () => 1,
): ImageData {
  const image = new ImageData(width, height);
  for (let index = 0; index < width * height; index++) {
    const value = values[index] ?? 0;
    const [r, g, b] = magmaAt(value);
    image.data.set([r, g, b, Math.round(alpha(value) * 255)], index * 4);
  }
  return image;
}

/** A token of the theme, as the canvas needs it. */
export const themeColour = (name: string): string =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
