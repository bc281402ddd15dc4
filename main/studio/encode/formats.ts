/** The file formats a clip can be written in. Known everywhere; how each is encoded is the encoder process's business. */

export const clipFormats = ['mp4', 'webm-vp9', 'webm-av1', 'mov-prores', 'gif', 'png'] as const;
export type ClipFormat = (typeof clipFormats)[number];

/** What a file of the format ends in; a PNG sequence is a folder and has none. */
export const fileEndings: Record<ClipFormat, string> = {
  mp4: '.mp4',
  'webm-vp9': '.webm',
  'webm-av1': '.webm',
  'mov-prores': '.mov',
  gif: '.gif',
  png: '',
};

/** Constant rate factors: lower is better and larger. Absent: the format has no such choice. */
export const rateFactors: Partial<Record<ClipFormat, { default: number; best: number; worst: number }>> = {
  mp4: { default: 18, best: 0, worst: 51 },
  'webm-vp9': { default: 24, best: 0, worst: 63 },
  'webm-av1': { default: 24, best: 1, worst: 63 },
};
