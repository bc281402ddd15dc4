/** `vmoba-studio bench`: how fast the engine is here. The same measurements as `vmoba-native bench`. */
import { Argument, Command } from 'commander';
import { StudioError } from '../../contract/errors.ts';
import { withEngine } from './engine.ts';

export function benchCommand(): Command {
  return new Command('bench')
    .description('Measure forward passes of a model shape, or attention alone, on this machine')
    .addArgument(new Argument('<kind>', 'what to measure').choices(['model', 'attention']))
    .argument(
      '[options...]',
      'name=value for the benchmark, e.g. tokens=7800 repeats=5 policies=\'["dense","vmoba-trained"]\'',
    )
    .option('--json', 'print only the result, as JSON')
    .action(async (kind: string, settings: string[], { json }: { json?: boolean }) => {
      const options = { kind, ...Object.fromEntries(settings.map(parseSetting)) };
      const progress = (line: Record<string, unknown>) => json || console.error(JSON.stringify(line));
      const result = await withEngine((engine) => engine.bench(options, progress));
      console.log(JSON.stringify(result, null, json ? undefined : 2));
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
