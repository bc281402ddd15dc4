/** Waiting for a render that a studio works on, while telling how it goes. */
import { fromErrorShape, StudioError } from '../../contract/errors.ts';
import type { Render } from '../../contract/renders.ts';
import type { RenderPrinter } from './studioProgress.ts';
import type { StudioSession } from './studioSession.ts';

export interface Following {
  /** Resolves with the finished render. Errors: its own when it failed, cancelled, disconnected. */
  of(id: string): Promise<Render & { takeId: string }>;
  dispose(): void;
}

/** Listens from now on. An aborted signal ends the waiting, never the render. */
export function follow(session: StudioSession, printer: RenderPrinter, signal: AbortSignal): Following {
  const { client } = session;
  let wanted: string | undefined;
  let settle: (render: Render) => void = () => {};
  const ends = [
    client.on('renders.changed', (render) => render.id === wanted && settle(render)),
    client.on('renders.progress', ({ id, progress }) => id === wanted && printer.progress(progress)),
    client.on('renders.step', ({ id, step }) => id === wanted && printer.step(step)),
    client.on('queue.changed', (queue) => printer.queue(queue)),
  ];
  const dispose = () => {
    for (const end of ends) end();
  };
  return {
    dispose,
    async of(id) {
      const done = new Promise<Render & { takeId: string }>((resolve, reject) => {
        settle = (render) => {
          printer.changed(render);
          const { state, error, takeId } = render;
          if (state === 'done' && takeId !== null) resolve({ ...render, takeId });
          else if (state === 'failed')
            reject(error ? fromErrorShape(error) : new StudioError('internal', 'It failed.'));
          else if (state === 'cancelled') reject(new StudioError('cancelled', 'The render was cancelled.'));
        };
        const detach = () => reject(new StudioError('cancelled', laterWords(session.inProcess, id)));
        if (signal.aborted) detach();
        else signal.addEventListener('abort', detach);
        void session.lost.then(reject);
      });
      wanted = id;
      try {
        settle(await client.call('renders.get', { id }));
        printer.queue(await client.call('queue.status', {}));
        return await done;
      } finally {
        done.catch(() => {}); // an error above comes first
        dispose();
      }
    },
  };
}

const laterWords = (inProcess: boolean, id: string) =>
  inProcess
    ? `Stopped; the render keeps its steps and goes on with vmoba-studio queue run. To drop it: vmoba-studio queue cancel ${id}.`
    : `No longer watching; the studio goes on rendering. To watch again: vmoba-studio queue run ${id}.`;
