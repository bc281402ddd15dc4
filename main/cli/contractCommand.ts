/** What the commands that ask a studio have in common. */
import type { Command } from 'commander';
import { connectOption, libraryOption, type SessionFlags, type StudioSession, withSession } from './studioSession.ts';

export interface ContractFlags extends SessionFlags {
  json?: boolean;
}

/** A subcommand with the options that say which studio. */
export function contractCommand(parent: Command, name: string, description: string): Command {
  return parent
    .command(name)
    .description(description)
    .addOption(connectOption())
    .addOption(libraryOption())
    .option('--json', 'print JSON');
}

/** An action that only asks: nothing is rendered in this process meanwhile. */
export function asking<Flags extends ContractFlags, Args extends unknown[]>(
  work: (session: StudioSession, flags: Flags, ...args: Args) => Promise<void>,
) {
  return async (...given: unknown[]): Promise<void> => {
    // Commander gives the arguments, then the options, then the command.
    const flags = given.at(-2) as Flags;
    await withSession(flags, false, (session) => work(session, flags, ...(given.slice(0, -2) as Args)));
  };
}

/** An answer for a program as it is, or for a person in words. */
export function printResult(result: unknown, json: boolean | undefined, inWords: () => void): void {
  if (json) console.log(JSON.stringify(result));
  else inWords();
}

interface Page<Item> {
  items: Item[];
  nextCursor: string | null;
}

/** A whole list. */
export async function everyPage<Item>(page: (cursor: string | null) => Promise<Page<Item>>): Promise<Item[]> {
  const all: Item[] = [];
  let cursor: string | null = null;
  do {
    const { items, nextCursor }: Page<Item> = await page(cursor);
    all.push(...items);
    cursor = nextCursor;
  } while (cursor !== null);
  return all;
}
