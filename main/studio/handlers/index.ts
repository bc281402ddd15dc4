/** Every handler of an open studio, by subject. */
import type { MethodName } from '../../../contract/index.ts';
import type { Handlers } from '../../../contract/index.ts';
import type { Core } from '../core.ts';
import type { CallContext } from './context.ts';
import { estimateHandlers, policyHandlers } from './estimates.ts';
import { engineHandlers, exportHandlers, modelHandlers, settingsHandlers } from './models.ts';
import { queueHandlers, renderHandlers } from './renders.ts';
import { presetHandlers, projectHandlers, promptHandlers, takeHandlers, uploadHandlers } from './takes.ts';

/** Methods that also answer while the library cannot be opened; the studio itself has them. */
export type StandingMethod = Extract<MethodName, `studio.${string}` | `library.${string}` | `host.${string}`>;

export const isStandingMethod = (name: MethodName): name is StandingMethod => /^(studio|library|host)\./.test(name);

export function coreHandlers(core: Core): Omit<Handlers<CallContext>, StandingMethod> {
  return {
    ...renderHandlers(core),
    ...queueHandlers(core),
    ...takeHandlers(core),
    ...uploadHandlers(core),
    ...projectHandlers(core),
    ...presetHandlers(core),
    ...promptHandlers(core),
    ...estimateHandlers(core),
    ...policyHandlers(core),
    ...modelHandlers(core),
    ...engineHandlers(core),
    ...exportHandlers(core),
    ...settingsHandlers(core),
  };
}
