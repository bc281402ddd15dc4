/** An engine for the length of one command. */
import { EngineClient } from '../engine/engineClient.ts';

export async function withEngine<Result>(work: (engine: EngineClient) => Promise<Result>): Promise<Result> {
  const engine = EngineClient.start();
  try {
    return await work(engine);
  } finally {
    await engine.stop();
  }
}

/** Aborts on the first Ctrl-C or termination request; a second Ctrl-C ends at once. */
export function abortOnSignals(): AbortSignal {
  const controller = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted && name === 'SIGINT') process.exit(130);
      controller.abort();
    });
  }
  return controller.signal;
}
