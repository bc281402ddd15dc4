/** The command line: `vmoba-studio <command>`. Each command is a file; this one only names them. */
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { watchParent } from '../engine/process/childHost.ts';
import { benchCommand } from './bench.ts';
import { devicesCommand } from './devices.ts';
import { exitCodeHelp, exitCodeOf, exitCodes, reportError } from './exitCodes.ts';
import { inspectCommand } from './inspect.ts';
import { renderCommand } from './render.ts';
import { serveCommand } from './serve.ts';
import { verifyCommand } from './verify.ts';

// Started through a launcher (see scripts/vmoba-studio.mjs): gone with it, like every process of ours with its parent.
const launcher = Number(process.env['VMOBA_LAUNCHER_PID']);
if (launcher) watchParent(launcher);

const program = new Command('vmoba-studio')
  .description('Turns a prompt into a video on this machine.')
  .addHelpText('after', exitCodeHelp)
  .showHelpAfterError('(--help shows what there is)');

const commands = [renderCommand(), serveCommand(), verifyCommand(), benchCommand(), inspectCommand(), devicesCommand()];
for (const command of commands) program.addCommand(command.addHelpText('after', exitCodeHelp));
for (const command of [program, ...commands]) command.exitOverride();

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has printed the message; its own codes mean nothing to scripts.
    process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.badInput;
  } else if (error instanceof InvalidArgumentError) {
    console.error(error.message);
    process.exitCode = exitCodes.badInput;
  } else {
    reportError(error, process.argv.includes('--json'));
    process.exitCode = exitCodeOf(error);
  }
}
