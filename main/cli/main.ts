/** The command line: `vmoba-studio <command>`. Each command is a file; this one only names them. */
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { watchParent } from '../engine/process/childHost.ts';
import { benchCommand } from './bench.ts';
import { callCommand } from './call.ts';
import { devicesCommand } from './devices.ts';
import { exitCodeHelp, exitCodeOf, exitCodes, reportError } from './exitCodes.ts';
import { inspectCommand } from './inspect.ts';
import { modelsCommand } from './models.ts';
import { projectsCommand, takesCommand } from './projects.ts';
import { queueCommand } from './queue.ts';
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

const commands = [
  renderCommand(),
  serveCommand(),
  queueCommand(),
  modelsCommand(),
  projectsCommand(),
  takesCommand(),
  verifyCommand(),
  benchCommand(),
  inspectCommand(),
  devicesCommand(),
];
for (const command of commands) program.addCommand(command);
callCommand(program);
for (const command of withSubcommands(program)) {
  command.exitOverride();
  if (command !== program) command.addHelpText('after', exitCodeHelp);
}

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

function withSubcommands(command: Command): Command[] {
  return [command, ...command.commands.flatMap(withSubcommands)];
}
