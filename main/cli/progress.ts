/** What a person or a program sees while a render runs. */
import type { RenderEvent, Take } from '../studio/render/take.ts';
import { formatBytes, formatSeconds } from './format.ts';

export interface ProgressPrinter {
  event(event: RenderEvent): void;
  done(take: Take): void;
}

/** JSON lines on standard output; pictures and maps stay out. */
export function jsonPrinter(extra: Record<string, unknown> = {}): ProgressPrinter {
  const print = (value: object) => console.log(JSON.stringify({ ...extra, ...value }));
  return {
    event(event) {
      if (event.kind === 'step') print({ event: 'step', report: event.report });
      else {
        const { kind, ...rest } = event;
        print({ event: kind, ...rest });
      }
    },
    done: (take) => print({ event: 'done', take: { ...take, steps: undefined } }),
  };
}

const barWidth = 24;

/** A bar on a terminal, a line per step elsewhere; everything but the result goes to standard error. */
export function textPrinter(steps: number): ProgressPrinter {
  const terminal = process.stderr.isTTY;
  const stepSeconds: number[] = [];
  const draw = (text: string) => process.stderr.write(terminal ? `\r\x1b[2K${text}` : `${text}\n`);
  const bar = (label: string, done: number, all: number, tail: string) => {
    const filled = Math.round((barWidth * done) / all);
    draw(`${label.padEnd(9)} ${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)} ${tail}`);
  };
  return {
    event(event) {
      switch (event.kind) {
        case 'planned':
          for (const warning of event.warnings) process.stderr.write(`note: ${warning}\n`);
          break;
        case 'resumed': {
          const { fromStep, reason } = event.resumed;
          process.stderr.write(`Resumed at step ${fromStep}${reason ? `, not bit-identical: ${reason}` : ''}.\n`);
          break;
        }
        case 'progress': {
          const { phase, fraction, step = 0 } = event.progress;
          if (!terminal) break;
          if (phase === 'sampling')
            bar(phase, step + Math.min(1, fraction), steps, samplingTail(step, steps, stepSeconds));
          else if (phase !== 'decoding') bar(phase, fraction, 1, '');
          break;
        }
        case 'step':
          stepSeconds.push(event.report.seconds.total);
          bar('sampling', event.report.step + 1, steps, samplingTail(event.report.step + 1, steps, stepSeconds));
          break;
        case 'frames':
          bar('decoding', event.frames, event.of, `${event.frames}/${event.of} frames`);
          break;
        case 'encoded':
          if (terminal) draw('');
          break;
        case 'text':
        case 'checkpoint-refused':
        case 'checkpoint':
          break;
      }
    },
    done(take) {
      const { clip, timings, steps: reports } = take;
      const sum = (key: 'linears' | 'attention' | 'routing' | 'other') =>
        reports.reduce((total, report) => total + report.seconds[key], 0);
      console.log(`${clip.path}`);
      console.log(
        `  ${clip.frames} frames, ${clip.width}×${clip.height}, ${clip.fps} frames/s, ${formatBytes(clip.bytes)}`,
      );
      console.log(
        `  ${formatSeconds(timings.total)}: loading ${formatSeconds(timings.loading)}, text ${formatSeconds(timings.text)}, ` +
          `sampling ${formatSeconds(timings.sampling)}, decoding ${formatSeconds(timings.decoding)}, encoding ${formatSeconds(timings.encoding)}`,
      );
      console.log(
        `  sampling: linears ${formatSeconds(sum('linears'))}, attention ${formatSeconds(sum('attention'))}, ` +
          `routing ${formatSeconds(sum('routing'))}, other ${formatSeconds(sum('other'))}`,
      );
      console.log(
        `  peak memory ${formatBytes(take.peakBytes)}, latent ${take.latentHash}, frames ${take.framesHash.slice(0, 16)}`,
      );
    },
  };
}

function samplingTail(done: number, steps: number, stepSeconds: number[]): string {
  const count = `${Math.floor(done)}/${steps} steps`;
  if (stepSeconds.length === 0) return count;
  // The median of recent steps: dense and sparse ones differ.
  const recent = stepSeconds.slice(-5).sort((a, b) => a - b);
  const median = recent[Math.floor(recent.length / 2)] as number;
  return `${count}  ${formatSeconds(median)}/step  ETA ${formatSeconds(median * (steps - done))}`;
}
