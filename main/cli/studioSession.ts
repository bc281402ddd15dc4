/**
 * A studio for the length of one command: the one at --connect, the one that has the library open, or one in this process. All
 * are asked over the same contract.
 */
import { createWriteStream } from 'node:fs';
import { copyFile, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Option } from 'commander';
import { WebSocket } from 'ws';
import { StudioClient } from '../../contract/client.ts';
import { StudioError } from '../../contract/errors.ts';
import { connectInProcess } from '../host/memoryPipe.ts';
import { embeddedModel, galleryFolder, studioVersion } from '../host/resources.ts';
import { fileFailure } from '../studio/files/fileFailure.ts';
import { moveIntoPlace, temporaryBeside } from '../studio/files/temporary.ts';
import { defaultLibraryFolder, libraryPaths } from '../studio/library/folder.ts';
import { readOwner } from '../studio/library/lock.ts';
import { Studio } from '../studio/studio.ts';

export interface SessionFlags {
  connect?: string;
  library: string;
}

export interface StudioSession {
  client: StudioClient;
  /** Whether the studio ends with this command. */
  inProcess: boolean;
  /** Resolves when the studio has gone before the command was through. */
  lost: Promise<StudioError>;
  /** Writes a clip or picture to a file that appears complete or not at all. Errors: not-found, io, disk-full. */
  save(mediaId: string, path: string): Promise<void>;
  close(): Promise<void>;
}

export const connectOption = () =>
  new Option('--connect <url>', 'the address that vmoba-studio serve printed').env('VMOBA_CONNECT');

export const libraryOption = () =>
  new Option('--library <folder>', "the library's folder")
    .default(defaultLibraryFolder())
    .argParser((text) => resolve(text));

/** @param work Whether a studio in this process may render. Errors: library-locked, unauthorized, disconnected, and those of opening. */
export async function openSession(flags: SessionFlags, work: boolean): Promise<StudioSession> {
  if (flags.connect !== undefined) return connect(flags.connect);
  try {
    return await openHere(flags.library, work);
  } catch (error) {
    if (!(error instanceof StudioError) || error.code !== 'library-locked') throw error;
    const url = readOwner(libraryPaths(flags.library))?.url;
    if (!url) throw error;
    return connect(url);
  }
}

/** Runs a command against a studio and leaves it in order. */
export async function withSession<Result>(
  flags: SessionFlags,
  work: boolean,
  command: (session: StudioSession) => Promise<Result>,
): Promise<Result> {
  const session = await openSession(flags, work);
  try {
    return await command(session);
  } finally {
    await session.close();
  }
}

async function openHere(folder: string, work: boolean): Promise<StudioSession> {
  const addon = process.env['VMOBA_ADDON'];
  const studio = await Studio.open({
    folder,
    version: studioVersion(),
    host: { kind: 'in-process' },
    embeddedModel: embeddedModel(),
    galleryFolder: galleryFolder(),
    work,
    ...(addon === undefined ? {} : { addon }),
  });
  return {
    client: connectInProcess(studio, 'command-line'),
    inProcess: true,
    lost: new Promise(() => {}),
    async save(mediaId, path) {
      const source = await studio.media(mediaId);
      if (source === null) throw noSuchFile();
      await writeWhole(path, (temporary) => copyFile(source, temporary));
    },
    close: () => studio.close('The command has ended.'),
  };
}

async function connect(text: string): Promise<StudioSession> {
  const { origin, token } = parseAddress(text);
  const headers = { authorization: `Bearer ${token}` };
  const socket = new WebSocket(`${origin.replace(/^http/, 'ws')}/studio`, { headers, perMessageDeflate: false });
  await opened(socket, origin);
  const client = new StudioClient({
    send: (message) => socket.send(message),
    close: () => socket.close(1000),
  });
  socket.on('message', (data: Buffer) => client.receive(data));
  const lost = new Promise<StudioError>((resolveLost) =>
    socket.on('close', () => {
      const reason = `The studio at ${origin} has gone. What it had begun goes on when it is started again.`;
      client.disconnected(reason);
      resolveLost(new StudioError('disconnected', reason));
    }),
  );
  socket.on('error', () => {}); // 'close' follows
  return {
    client,
    inProcess: false,
    lost,
    async save(mediaId, path) {
      const response = await fetch(`${origin}/media/${mediaId}`, { headers }).catch((error: Error) => {
        throw new StudioError('disconnected', `The clip cannot be fetched: ${error.message}`, { cause: error });
      });
      if (!response.ok || !response.body) {
        await response.body?.cancel();
        throw noSuchFile();
      }
      const body = Readable.fromWeb(response.body);
      await writeWhole(path, (temporary) => pipeline(body, createWriteStream(temporary, { flags: 'wx' })));
    },
    async close() {
      client.close();
      setTimeout(() => socket.terminate(), 1000).unref();
      await lost;
    },
  };
}

/** http://host:port/?token=… Errors: bad-request with field `connect`. */
export function parseAddress(text: string): { origin: string; token: string } {
  const url = URL.canParse(text) ? new URL(text) : null;
  const token = url?.searchParams.get('token');
  if (url && /^https?:$/.test(url.protocol) && token && /^[\w-]{1,200}$/.test(token))
    return { origin: url.origin, token };
  throw new StudioError(
    'bad-request',
    'connect must be the address that vmoba-studio serve printed, like http://127.0.0.1:8421/?token=….',
    { field: 'connect' },
  );
}

function opened(socket: WebSocket, origin: string): Promise<void> {
  return new Promise((resolveOpened, reject) => {
    socket.once('open', resolveOpened);
    socket.once('unexpected-response', (_, { statusCode = 0 }) => {
      socket.on('error', () => {}); // aborting the handshake says so once more
      socket.terminate();
      const stale = 'it does not take this token: it makes a new one at each start; use the address it printed last';
      const reason = statusCode === 401 ? stale : `it answered ${statusCode}`;
      reject(
        new StudioError(statusCode === 401 ? 'unauthorized' : 'disconnected', `The studio at ${origin}: ${reason}.`),
      );
    });
    socket.once('error', (error: Error) =>
      reject(
        new StudioError('disconnected', `No studio answers at ${origin}: ${error.message || 'nobody listens there'}.`, {
          cause: error,
        }),
      ),
    );
  });
}

const noSuchFile = () => new StudioError('not-found', 'The studio has no such file any more.', { field: 'mediaId' });

async function writeWhole(path: string, write: (temporary: string) => Promise<unknown>): Promise<void> {
  const temporary = temporaryBeside(path);
  try {
    await write(temporary);
    await moveIntoPlace(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw fileFailure(error, `Writing ${path}`);
  }
}
