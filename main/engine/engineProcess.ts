/**
 * Entry of the engine process: loads the native addon and serves it. Nothing is decided here; JSON text becomes values, and
 * sessions get numbers.
 *   --nice=N   lower the priority before any native thread starts
 */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { addonPath } from './addonPath.ts';
import type { NativeBinding, NativeSession } from './binding.ts';
import { type CallContext, lowerPriority, serve } from './process/childHost.ts';
import type { EngineMethods, EngineTells, SessionId } from './protocol.ts';

const nice = process.argv.find((argument) => argument.startsWith('--nice='));
if (nice) lowerPriority(Number(nice.slice('--nice='.length)));

const addon = loadAddon();
addon.catch(() => {}); // each call reports it
const sessions = new Map<SessionId, OpenSession>();
let nextSession = 1;

interface OpenSession {
  native: NativeSession;
  /** Calls that have not settled yet. */
  running: number;
  cancelling: NodeJS.Timeout | undefined;
}

type Served = {
  [Name in keyof EngineMethods]: (
    context: CallContext,
    ...args: Parameters<EngineMethods[Name]>
  ) => ReturnType<EngineMethods[Name]> | Promise<ReturnType<EngineMethods[Name]>>;
};

const methods: Served = {
  describe: async () => JSON.parse((await addon).describe()),
  inspect: async (_, path) => JSON.parse(await (await addon).inspect(path)),
  verify: async ({ emit }, options) =>
    JSON.parse(await (await addon).verify(JSON.stringify(options), (json) => emit(JSON.parse(json)))),
  bench: async ({ emit }, options) =>
    JSON.parse(await (await addon).bench(JSON.stringify(options), (json) => emit(JSON.parse(json)))),
  plan: async (_, request) => JSON.parse(await (await addon).plan(JSON.stringify(request))),
  open: async ({ emit }, request) => {
    const session = await (await addon).openSession(JSON.stringify(request), (json) => emit(JSON.parse(json)));
    sessions.set(nextSession, { native: session, running: 0, cancelling: undefined });
    return nextSession++;
  },
  encodeText: async (_, id) => JSON.parse(await during(id, (session) => session.encodeText())),
  step: async (_, id, options) => {
    const { report, preview, maps } = await during(id, (session) => session.step(JSON.stringify(options)));
    return {
      report: JSON.parse(report),
      preview,
      maps: maps && { header: JSON.parse(maps.header), data: maps.data },
    };
  },
  saveCheckpoint: async (_, id, path) => JSON.parse(await during(id, (session) => session.saveCheckpoint(path))),
  restoreCheckpoint: async (_, id, path) => JSON.parse(await during(id, (session) => session.restoreCheckpoint(path))),
  latentHash: (_, id) => during(id, (session) => session.latentHash()),
  decodeFrames: (_, id) => during(id, (session) => session.decodeFrames()),
  close: async (_, id) => {
    const session = sessions.get(id);
    sessions.delete(id);
    await session?.native.close();
  },
};

const cancelAgainMs = 50;

const tells: EngineTells = {
  cancel: (id) => {
    const session = sessions.get(id);
    if (!session || session.running === 0) return;
    session.native.cancel();
    // A call that was only about to begin has not noticed: say it until the call has ended.
    session.cancelling ??= setInterval(() => session.native.cancel(), cancelAgainMs);
  },
  lowerPriority,
};

serve(methods, { ...tells });

function open(id: SessionId): OpenSession {
  const session = sessions.get(id);
  if (!session) throw new Error(`session ${id} is not open`);
  return session;
}

/** Runs a call that can be cancelled. */
async function during<Result>(id: SessionId, call: (session: NativeSession) => Promise<Result>): Promise<Result> {
  const session = open(id);
  session.running++;
  try {
    return await call(session.native);
  } finally {
    if (--session.running === 0) {
      clearInterval(session.cancelling);
      session.cancelling = undefined;
    }
  }
}

/** A `.node` file, or (tests) a module whose default export is a NativeBinding. */
async function loadAddon(): Promise<NativeBinding> {
  try {
    const path = addonPath();
    if (path.endsWith('.node')) return createRequire(import.meta.url)(path) as NativeBinding;
    return ((await import(pathToFileURL(path).href)) as { default: NativeBinding }).default;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw Object.assign(new Error(`The native engine cannot be loaded: ${reason}`), { code: 'engine-unavailable' });
  }
}
