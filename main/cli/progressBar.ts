/** One line that is drawn over on a terminal, and a line for each change elsewhere. Standard error, so that results stay clean. */

const width = 24;

export interface ProgressBar {
  /** @param fraction 0..1. */
  draw(label: string, fraction: number, tail: string): void;
  /** Makes room for other text. */
  clear(): void;
}

export function progressBar(stream: NodeJS.WriteStream = process.stderr): ProgressBar {
  let drawn = false;
  let last = '';
  return {
    draw(label, fraction, tail) {
      const filled = Math.round(width * Math.min(1, Math.max(0, fraction)));
      const text = `${label.padEnd(9)} ${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${tail}`;
      if (stream.isTTY) stream.write(`\r\x1b[2K${text}`);
      else if (label !== last) stream.write(`${text}\n`);
      drawn = stream.isTTY;
      last = label;
    },
    clear() {
      if (drawn) stream.write('\r\x1b[2K');
      drawn = false;
    },
  };
}
