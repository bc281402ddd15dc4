/** `vmoba-studio inspect`: what a model file holds, without loading it. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import { withEngine } from './engine.ts';
import { formatBytes } from './format.ts';

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('Say what a weight file, index, folder or model.json holds')
    .argument('<file>')
    .option('--json', 'print JSON')
    .action(async (file: string, options: { json?: boolean }) => {
      const found = await withEngine((engine) => engine.inspect(resolve(file)));
      if (options.json) return console.log(JSON.stringify(found, null, 2));
      console.log(`${found.kind}, ${found.naming} names, ${found.tensors} tensors, ${formatBytes(found.bytes)}`);
      const types = Object.entries(found.dtypes).map(([type, count]) => `${type} ×${count}`);
      if (types.length > 0) console.log(`types: ${types.join(', ')}`);
      for (const [name, value] of Object.entries(found.config)) console.log(`  ${name.padEnd(20)} ${value}`);
      for (const warning of found.warnings) console.log(`warning: ${warning}`);
    });
}
