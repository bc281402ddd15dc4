/** Numbers as people read them. Everything that varies with the language goes through here or through the texts. */
const locale = 'en';
const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 });
const dates = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'short' });

export const count = (value: number): string => whole.format(value);

export const fixed = (value: number, digits: number): string => value.toFixed(digits);

/** 0.19 → "0.19"; 1 → "1.00" */
export const density = (value: number): string => value.toFixed(2);

/** 2.06 → "2.06×" */
export const times = (value: number, digits = 2): string => `${value.toFixed(digits)}×`;

export const percent = (fraction: number): string => `${Math.round(fraction * 100)} %`;

/** Three significant figures at most, unit chosen by size: "0.84 s", "12.6 s", "2 min 14 s", "1 h 52 min". */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds === 0) return '0 s';
  if (seconds < 0.0995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.995) return `${seconds.toFixed(seconds < 0.995 ? 2 : 1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) {
    const rest = Math.round(seconds) % 60;
    return rest === 0 || minutes >= 10 ? `${minutes} min` : `${minutes} min ${rest} s`;
  }
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Seconds with fixed digits, for columns: "0.842 s". */
export const seconds = (value: number): string => `${value.toFixed(value < 10 ? (value < 1 ? 3 : 2) : 1)} s`;

/** Decimal units, as file managers show them. */
export function bytes(value: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  let power = 0;
  let scaled = value;
  while (scaled >= 999.5 && power < units.length - 1) {
    scaled /= 1000;
    power++;
  }
  const digits = power === 0 || scaled >= 99.5 ? 0 : 1;
  return `${scaled.toFixed(digits)} ${units[power]}`;
}

export const date = (timestamp: number): string => dates.format(timestamp);

/** "832 × 480" */
export const size = (width: number, height: number): string => `${width} × ${height}`;

/** "5.1 s" for a clip's length. */
export const clipLength = (frames: number, fps: number): string => `${(frames / fps).toFixed(1)} s`;
