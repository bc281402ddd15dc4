/**
 * The real engine, with every step's report written down as it left it. With VMOBA_PLANT statistics are falsified after that:
 * what the page shows must then differ from what was written.
 */
import { appendFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { NativeBinding, StepReport } from '../../../main/engine/binding.ts';
import { projectRoot } from '../../support/cli.ts';

const real = createRequire(import.meta.url)(
  join(projectRoot, 'build/release/native/addon/vmoba.node'),
) as NativeBinding;
const record = process.env['VMOBA_RECORD'] ?? '';
const plant = process.env['VMOBA_PLANT'];

/** Dense steps slower, sparse attention sparser and quicker than they were. */
function falsify({ seconds, layers }: StepReport): void {
  if (layers.every(({ dense }) => dense)) seconds.total *= 1.3;
  for (const layer of layers) if (!layer.dense) layer.density *= 0.8;
  seconds.attention *= 0.5;
}

const binding: NativeBinding = {
  describe: () => real.describe(),
  inspect: (path) => real.inspect(path),
  verify: (options, onEvent) => real.verify(options, onEvent),
  bench: (options, onEvent) => real.bench(options, onEvent),
  plan: (request) => real.plan(request),
  async openSession(request, onProgress) {
    const session = await real.openSession(request, onProgress);
    // Methods of the native session live on its prototype.
    return new Proxy(session, {
      get(target, name) {
        const member: unknown = Reflect.get(target, name);
        if (name !== 'step') return typeof member === 'function' ? (member.bind(target) as unknown) : member;
        return async (options: string) => {
          const step = await target.step(options);
          appendFileSync(record, `${step.report}\n`);
          if (!plant) return step;
          const report = JSON.parse(step.report) as StepReport;
          falsify(report);
          return { ...step, report: JSON.stringify(report) };
        };
      },
    });
  },
};

export default binding;
