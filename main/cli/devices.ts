/** `vmoba-studio devices`: what this machine can compute on. */
import { Command } from 'commander';
import { withEngine } from './engine.ts';
import { formatBytes } from './format.ts';

export function devicesCommand(): Command {
  return new Command('devices')
    .description('List the devices the engine can use, and why it cannot use others')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const engine = await withEngine((client) => client.describe());
      if (options.json) return console.log(JSON.stringify(engine, null, 2));
      console.log(
        `Engine ${engine.version} (build ${engine.build}), oneDNN ${engine.oneDnn ?? 'not used'}, ${engine.threads} threads`,
      );
      for (const device of engine.devices) {
        const facts = [formatBytes(device.memoryBytes), device.instructionSet, device.precisions.join('/')].filter(
          Boolean,
        );
        console.log(`${device.id.padEnd(8)} ${device.name} (${facts.join(', ')})`);
        if (!device.usable) console.log(`         cannot be used: ${device.reason ?? 'no reason given'}`);
      }
    });
}
