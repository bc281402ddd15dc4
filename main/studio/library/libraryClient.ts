/** The library as the studio's main thread sees it: every table method as a promise, answered by the library's own thread. */
import { Worker } from 'node:worker_threads';
import { fromErrorShape, StudioError } from '../../../contract/errors.ts';
import { forkEntry } from '../../engine/process/forkEntry.ts';
import { type LibraryPaths, libraryPaths } from './folder.ts';
import type { LibraryAnswer, LibraryCall, LibraryControl } from './libraryWorker.ts';
import type { LibraryTables } from './openLibrary.ts';

type Promised<Table> = {
  [Name in keyof Table as Table[Name] extends (...args: never[]) => unknown ? Name : never]: Table[Name] extends (
    ...args: infer Args
  ) => infer Result
    ? (...args: Args) => Promise<Result>
    : never;
};

export type Library = { readonly [Name in keyof LibraryTables]: Promised<LibraryTables[Name]> } & {
  readonly control: Promised<LibraryControl>;
  readonly paths: LibraryPaths;
  /** Slow calls so far, for finding what to mend: name and milliseconds. */
  readonly slowCalls: readonly { name: string; milliseconds: number }[];
  /** Closes the database, releases the lock, ends the thread. */
  close(): Promise<void>;
};

const slowMs = 50;
const keptSlowCalls = 100;

/** Starts the library's thread; nothing is opened yet. */
export function startLibrary(folder: string): Library {
  const worker = new Worker(forkEntry(import.meta.url, './libraryWorker.ts'), { workerData: { folder } });
  const calls = new Map<
    number,
    { resolve(value: unknown): void; reject(error: Error): void; name: string; at: number }
  >();
  const slowCalls: { name: string; milliseconds: number }[] = [];
  let nextId = 1;
  let ended: StudioError | undefined;
  const end = (reason: string) => {
    ended ??= new StudioError('internal', reason);
    for (const { reject } of calls.values()) reject(ended);
    calls.clear();
  };
  worker.on('message', (answer: LibraryAnswer) => {
    const call = calls.get(answer.id);
    calls.delete(answer.id);
    if (!call) return;
    const milliseconds = performance.now() - call.at;
    if (milliseconds > slowMs) slowCalls.push({ name: call.name, milliseconds });
    if (slowCalls.length > keptSlowCalls) slowCalls.shift();
    if ('error' in answer) call.reject(fromErrorShape(answer.error));
    else call.resolve(answer.value);
  });
  worker.on('error', (error) => end(`The library's thread failed: ${error.message}`));
  worker.on('exit', () => end('The library is closed.'));

  const call = (table: string, method: string, args: unknown[]) =>
    new Promise<unknown>((resolve, reject) => {
      if (ended) return reject(ended);
      const id = nextId++;
      calls.set(id, { resolve, reject, name: `${table}.${method}`, at: performance.now() });
      worker.postMessage({ id, table, method, args } satisfies LibraryCall);
    });
  const table = (name: string) =>
    new Proxy(Object.create(null) as object, {
      get:
        (_, method) =>
        (...args: unknown[]) =>
          call(name, String(method), args),
    });
  const names = ['renders', 'takes', 'projects', 'presets', 'models', 'settings', 'timings', 'upkeep', 'control'];
  return {
    ...(Object.fromEntries(names.map((name) => [name, table(name)])) as unknown as Omit<Library, 'paths' | 'close'>),
    paths: libraryPaths(folder),
    slowCalls,
    async close() {
      if (!ended) await call('control', 'close', []);
      await worker.terminate();
    },
  };
}
