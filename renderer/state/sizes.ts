/** Sizes and lengths that a model takes. */
import type { Model } from '../../contract/models.ts';

export interface SizePreset {
  name: string;
  width: number;
  height: number;
}

/** Shapes on offer, as width over height. */
const aspects: [name: string, ratio: number][] = [
  ['16:9', 16 / 9],
  ['4:3', 4 / 3],
  ['1:1', 1],
  ['3:4', 3 / 4],
  ['9:16', 9 / 16],
];

/** Released sizes of Wan, offered where a model takes them. */
const wanSizes: [number, number][] = [
  [832, 480],
  [480, 832],
  [1280, 720],
  [720, 1280],
];

/** What no model goes beyond. */
const longestSide = 8192;
const mostFrames = 4097;

export const snapSide = (value: number, multiple: number): number =>
  Math.max(1, Math.min(Math.floor(longestSide / multiple), Math.round(value / multiple))) * multiple;

/** The nearest length 4k+1. */
export const snapFrames = (value: number): number =>
  Math.max(1, Math.min(mostFrames, Math.round((value - 1) / 4) * 4 + 1));

/** Sizes to choose from: the model's own, then each shape as large as the model was trained for. */
export function sizePresets(model: Model | undefined): SizePreset[] {
  if (!model) return [];
  const { sideMultiple, maxTrainedSide, minSide } = model.limits;
  const { width: ownWidth, height: ownHeight } = model.defaults;
  const presets: SizePreset[] = [];
  const add = (name: string, width: number, height: number) => {
    if (!presets.some((other) => other.width === width && other.height === height))
      presets.push({ name, width, height });
  };
  if (ownWidth && ownHeight) add('', ownWidth, ownHeight);
  const largest = maxTrainedSide ?? Math.max(ownWidth ?? 832, ownHeight ?? 480);
  if (largest >= 832)
    for (const [width, height] of wanSizes)
      if (Math.max(width, height) <= Math.max(largest, 832)) add('', width, height);
  for (const [name, ratio] of aspects) {
    const width = snapSide(ratio >= 1 ? largest : largest * ratio, sideMultiple);
    const height = snapSide(ratio >= 1 ? largest / ratio : largest, sideMultiple);
    if (Math.min(width, height) >= (minSide ?? 0)) add(name, width, height);
  }
  return presets.map((preset) => ({ ...preset, name: preset.name || aspectName(preset.width, preset.height) }));
}

/** "16:9" where a size is near a common shape, otherwise the shape as a decimal. */
export function aspectName(width: number, height: number): string {
  const ratio = width / height;
  const near = aspects.find(([, known]) => Math.abs(Math.log(ratio / known)) < 0.04);
  return near ? near[0] : `${ratio.toFixed(2)}:1`;
}
