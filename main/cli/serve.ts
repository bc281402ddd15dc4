/** `vmoba-studio serve`: the studio without a window, for a browser and for other terminals. */
import { spawn } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { Command } from 'commander';
import { StudioError } from '../../contract/errors.ts';
import { isLoopback } from '../headless/server.ts';
import { type ServedStudio, serveStudio } from '../headless/serve.ts';
import { libraryPaths } from '../studio/library/folder.ts';
import { readOwner } from '../studio/library/lock.ts';
import { abortOnSignals } from './engine.ts';
import { libraryOption } from './studioSession.ts';

interface ServeFlags {
  library: string;
  host: string;
  port?: string;
  allowHost: string[];
  open?: boolean;
  json?: boolean;
}

/** Where it is looked for first; when taken, any free one will do, unless one was asked for. */
const usualPort = 8421;

export function serveCommand(): Command {
  return new Command('serve')
    .description('Serve the studio to a browser and to other terminals; renders wait in its queue and survive')
    .addOption(libraryOption())
    .option('--host <address>', 'address to listen on; anything but loopback lets the network in', '127.0.0.1')
    .option('--port <n>', `0 = any free one (default: ${usualPort}, or any when that is taken)`)
    .option('--allow-host <name>', 'another name by which browsers call this host (repeatable)', collect, [])
    .option('--open', 'open the browser')
    .option('--json', 'print JSON lines')
    .addHelpText(
      'after',
      `
The printed address carries a token that is made anew at each start; VMOBA_TOKEN sets one that stays.
Other terminals: vmoba-studio render --connect <address> "…"   (or VMOBA_CONNECT=<address>)`,
    )
    .action(async (flags: ServeFlags) => {
      const served = await start(flags);
      tell(served, flags);
      if (flags.open) openBrowser(served.server.url);
      await aborted(abortOnSignals());
      if (!flags.json) process.stderr.write('Stopping: a running render keeps its last step.\n');
      await served.close('The host was stopped.');
    });
}

async function start(flags: ServeFlags): Promise<ServedStudio> {
  const options = {
    library: flags.library,
    host: flags.host,
    token: tokenFrom(process.env['VMOBA_TOKEN']),
    allowHosts: flags.allowHost,
    addon: process.env['VMOBA_ADDON'],
  };
  try {
    if (flags.port !== undefined) return await serveStudio({ ...options, port: portFrom(flags.port) });
    return await serveStudio({ ...options, port: usualPort }).catch((error: unknown) => {
      if (!(error instanceof StudioError) || error.field !== 'port') throw error;
      return serveStudio({ ...options, port: 0 });
    });
  } catch (error) {
    const owner =
      error instanceof StudioError && error.code === 'library-locked' && readOwner(libraryPaths(flags.library));
    if (!owner || !owner.url) throw error;
    throw new StudioError('library-locked', `This library is served already: ${owner.url}`, { cause: error });
  }
}

function tell({ studio, server }: ServedStudio, { host, library, json }: ServeFlags): void {
  const { url, port, pages } = server;
  if (json) return console.log(JSON.stringify({ event: 'ready', url, port, pid: process.pid }));
  console.log(`VMoBA Studio serves ${library} at\n\n  ${url}\n`);
  if (pages === 0) console.log('The interface is not built (npm run build:app): only the command line can connect.');
  if (!isLoopback(host)) {
    for (const address of addressesOf(host)) console.log(`  ${url.replace('127.0.0.1', address)}`);
    console.log('The network can reach it, and reads along: prefer an SSH tunnel to a loopback address.');
  }
  for (const notice of studio.notices) console.log(`note: ${notice}`);
  console.log('Ctrl-C stops it; renders go on at the next start.');
}

const addressesOf = (host: string): string[] =>
  host === '0.0.0.0' || host === '::'
    ? Object.values(networkInterfaces()).flatMap((all) =>
        (all ?? []).filter(({ internal, family }) => !internal && family === 'IPv4').map(({ address }) => address),
      )
    : [];

/** Opens an address in the person's browser, as far as the system can. */
export function openBrowser(url: string): void {
  const [command, ...args] =
    process.platform === 'darwin'
      ? ['open', url]
      : process.platform === 'win32'
        ? ['rundll32', 'url.dll,FileProtocolHandler', url]
        : ['xdg-open', url];
  const child = spawn(command as string, args, { stdio: 'ignore', detached: true });
  child.on('error', () => {}); // the address is printed as well
  child.unref();
}

const collect = (value: string, before: string[]) => [...before, value];

const aborted = (signal: AbortSignal) =>
  new Promise<void>((resolve) => (signal.aborted ? resolve() : signal.addEventListener('abort', () => resolve())));

function portFrom(text: string): number {
  const port = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port;
  throw new StudioError('bad-request', `port must be a number from 0 to 65535, not '${text}'.`, { field: 'port' });
}

function tokenFrom(text: string | undefined): string | undefined {
  if (text === undefined || /^[\w-]{16,200}$/.test(text)) return text;
  throw new StudioError('bad-request', 'VMOBA_TOKEN must be 16 to 200 letters, digits, dashes or underscores.', {
    field: 'token',
  });
}
