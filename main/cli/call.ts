/** `vmoba-studio call`: any method of the contract, for programs. */
import { Argument, type Command } from 'commander';
import { StudioError } from '../../contract/errors.ts';
import { type MethodInput, type MethodName, methods } from '../../contract/index.ts';
import { asking, contractCommand } from './contractCommand.ts';

export function callCommand(program: Command): Command {
  return contractCommand(program, 'call', 'Call a method of the contract and print its answer as JSON')
    .addArgument(new Argument('<method>', 'its name').choices(Object.keys(methods)))
    .argument('[input]', 'JSON', '{}')
    .action(
      asking(async ({ client }, _flags, name: MethodName, text: string) => {
        const answer = await client.call(name, parsed(text) as MethodInput<'queue.status'>);
        console.log(JSON.stringify(answer, withoutBytes));
      }),
    );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new StudioError('bad-request', `input is not valid JSON: ${(error as Error).message}`, {
      field: 'input',
      cause: error,
    });
  }
}

/** Pictures and maps are for eyes; how large they are is enough here. */
const withoutBytes = (_: string, value: unknown): unknown =>
  value instanceof Uint8Array ? { bytes: value.length } : value;
