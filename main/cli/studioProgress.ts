/** What a person or a program sees of a render that a studio works on. Programs get the contract's own events. */
import type { QueueStatus } from '../../contract/queue.ts';
import type { Render, RenderProgress } from '../../contract/renders.ts';
import type { MethodOutput } from '../../contract/index.ts';
import type { Take } from '../../contract/takes.ts';
import type { EventPayload } from '../../contract/index.ts';
import { formatBytes, formatSeconds } from './format.ts';
import { progressBar } from './progressBar.ts';

export interface RenderPrinter {
  created(render: MethodOutput<'renders.create'>): void;
  changed(render: Render): void;
  progress(progress: RenderProgress): void;
  step(step: EventPayload<'renders.step'>['step']): void;
  queue(status: QueueStatus): void;
  /** @param path Where a copy of the clip was written. */
  done(take: Take, path: string | null): void;
}

export const renderPrinter = (json: boolean): RenderPrinter => (json ? jsonPrinter() : textPrinter());

function jsonPrinter(): RenderPrinter {
  const print = (value: object) => console.log(JSON.stringify(value));
  return {
    created: (render) => print({ event: 'created', render }),
    changed: (render) => print({ event: 'renders.changed', render }),
    progress: (progress) => print({ event: 'renders.progress', progress }),
    step: (step) => print({ event: 'renders.step', step }),
    queue: (status) => print({ event: 'queue.changed', status }),
    done: (take, path) => print({ event: 'done', take, path }),
  };
}

function textPrinter(): RenderPrinter {
  const bar = progressBar();
  let state = '';
  let held = '';
  const say = (text: string) => {
    bar.clear();
    process.stderr.write(`${text}\n`);
  };
  return {
    created({ id, warnings }) {
      say(`Queued as ${id}.`);
      for (const warning of warnings) say(`note: ${warning}`);
    },
    changed(render) {
      if (render.state === state) return;
      const crashed = render.engineCrashes > 0 && render.state === 'queued';
      if (crashed) say('The engine ended; the render goes on from its last step.');
      if (render.state === 'paused') say('Paused; vmoba-studio queue resume lets it go on.');
      if (state === 'paused' && render.state !== 'paused') say('Resumed.');
      state = render.state;
    },
    progress({ phase, fraction, step, steps, etaSeconds }) {
      const count = phase === 'sampling' ? `step ${Math.min(step + 1, steps)}/${steps}` : '';
      const eta = etaSeconds === null ? '' : `ETA ${formatSeconds(etaSeconds)}`;
      bar.draw(phase, fraction, [`${Math.round(100 * fraction)} %`, count, eta].filter(Boolean).join('  '));
    },
    step: () => {},
    queue({ mode, reason }) {
      const now =
        mode === 'running' || mode === 'finishing' ? '' : `The queue is ${mode}${reason ? `: ${reason}` : ''}.`;
      if (now !== '' && now !== held) say(mode === 'paused' ? `${now} vmoba-studio queue resume lets it go on.` : now);
      held = now;
    },
    done({ clip, renderSeconds, latentHash, bitIdentical, differenceReason, id, peakBytes }, path) {
      bar.clear();
      console.log(path ?? id);
      console.log(
        `  ${clip.frames} frames, ${clip.width}×${clip.height}, ${clip.fps} frames/s, ${formatBytes(clip.bytes)}`,
      );
      console.log(`  ${formatSeconds(renderSeconds)}, peak memory ${formatBytes(peakBytes)}, latent ${latentHash}`);
      if (!bitIdentical) console.log(`  not bit-identical: ${differenceReason ?? 'no reason given'}`);
      if (path === null) console.log(`  To have it as a file: vmoba-studio takes save ${id} clip.mp4`);
    },
  };
}
