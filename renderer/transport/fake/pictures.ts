/** Still pictures of what a prompt says, as data addresses: one coloured shape on a ground. */
import type { World } from './world.ts';

const colours: Record<string, string> = {
  red: '#e5503c',
  green: '#5fae4b',
  blue: '#3f6fd8',
  yellow: '#f2c14e',
  white: '#f4f2ea',
  black: '#17171a',
  orange: '#ff8a5b',
  purple: '#9a5fd0',
  teal: '#4fd1b5',
};

export interface Scene {
  shape: 'circle' | 'square' | 'triangle';
  colour: string;
  ground: string;
}

/** The first colour word is the shape's, the second the ground's. */
export function sceneOf(prompt: string): Scene {
  const words = prompt.toLowerCase().split(/\W+/);
  const named = words.flatMap((word) => colours[word] ?? []);
  return {
    shape: words.includes('square') ? 'square' : words.includes('triangle') ? 'triangle' : 'circle',
    colour: named[0] ?? '#d8d5c8',
    ground: named[1] ?? '#23303f',
  };
}

export function rgbOf(hex: string): [number, number, number] {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

export function pictureAddress(world: World, mediaId: string): string {
  const take = world.takes.find((one) => one.posterMediaId === mediaId);
  if (!take) return 'data:,';
  const { width, height } = take.clip;
  const { shape, colour, ground } = sceneOf(take.settings.prompt);
  const [x, y, r] = [width / 2, height * 0.55, Math.min(width, height) / 4];
  const drawn =
    shape === 'circle'
      ? `<circle cx="${x}" cy="${y}" r="${r}" fill="${colour}"/>`
      : shape === 'square'
        ? `<rect x="${x - r}" y="${y - r}" width="${2 * r}" height="${2 * r}" fill="${colour}"/>`
        : `<path d="M${x} ${y - r}L${x + r} ${y + r}H${x - r}Z" fill="${colour}"/>`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}"><rect width="100%" height="100%" fill="${ground}"/>${drawn}</svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}
