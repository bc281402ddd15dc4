/** `vmoba-studio bench`: how fast the engine is here. The same measurements as `vmoba-native bench`. */
import { Argument, Command } from 'commander';
import { StudioError } from '../../contract/errors.ts';
import { withEngine } from './engine.ts';
import { modelFolder } from './renderOptions.ts';

export function benchCommand(): Command {
  return new Command('bench')
    .description('Measure forward passes of a model shape, or attention alone, on this machine')
    .addArgument(new Argument('<kind>', 'what to measure').choices(['model', 'attention']))
    .argument(
      '[options...]',
      'name=value for the benchmark, e.g. tokens=7800 repeats=5 policies=\'["dense","vmoba-trained"]\'',
    )
    .option('--backend <device>', 'cpu (unless another is named), or a device such as cuda')
    .option('--json', 'print only the result, as JSON')
    .action(async (kind: string, settings: string[], { backend, json }: { backend?: string; json?: boolean }) => {
      // Attention is also measured on values captured from a render: of the embedded model unless another is named.
      const captured = kind === 'attention' ? { model: modelFolder(undefined) } : {};
      const device = backend === undefined ? {} : { backend };
      const options = { kind, ...device, ...captured, ...Object.fromEntries(settings.map(parseSetting)) };
      const progress = (line: Record<string, unknown>) => json || process.stderr.write(`${JSON.stringify(line)}\n`);
      const result = await withEngine((engine) => engine.bench(options, progress));
      if (json) console.log(JSON.stringify(result));
      else printResult(result);
    });
}

/** `name=value`; the value is JSON where it reads as JSON, otherwise text. */
function parseSetting(setting: string): [string, unknown] {
  const [, name, text] = /^(?:--)?([A-Za-z]\w*)=(.*)$/s.exec(setting) ?? [];
  if (name === undefined || text === undefined) {
    throw new StudioError('bad-request', `'${setting}' is no benchmark option: write name=value.`);
  }
  try {
    return [name, JSON.parse(text)];
  } catch {
    return [name, text];
  }
}

/** What it ran on, then a row per measurement. */
function printResult(result: Record<string, unknown>): void {
  const rows = Object.values(result).find(
    (value): value is Record<string, unknown>[] => Array.isArray(value) && isRow(value[0]),
  );
  for (const [name, value] of Object.entries(result))
    if (value !== rows) console.log(`${name.padEnd(18)} ${shown(value)}`);
  if (!rows) return;
  const columns = Object.keys(rows[0] ?? {}).filter((name) => !isRow(rows[0]?.[name]));
  const cells = [columns, ...rows.map((row) => columns.map((name) => shown(row[name])))];
  const widths = columns.map((_, at) => Math.max(...cells.map((line) => line[at]?.length ?? 0)));
  console.log('');
  for (const line of cells) console.log(line.map((cell, at) => cell.padStart(widths[at] ?? 0)).join('  '));
}

const isRow = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value);

function shown(value: unknown): string {
  if (typeof value === 'number') return Number.isInteger(value) ? String(value) : value.toPrecision(4);
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}
