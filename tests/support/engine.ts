/** Engines and requests for tests. */
import { fileURLToPath } from 'node:url';
import type { SessionRequest } from '../../main/engine/binding.ts';
import { EngineClient, type EngineClientOptions } from '../../main/engine/engineClient.ts';

export const faultyAddon = fileURLToPath(new URL('./faultyAddon.ts', import.meta.url));

export function startFaultyEngine(options: EngineClientOptions = {}): EngineClient {
  return EngineClient.start({ addon: faultyAddon, ...options });
}

export function sessionRequest(changes: Partial<SessionRequest> = {}): SessionRequest {
  return {
    model: 'none',
    prompt: 'a red ball',
    negativePrompt: '',
    width: 32,
    height: 16,
    frames: 5,
    steps: 4,
    guidanceScale: 3,
    shift: 2,
    scheduler: 'unipc',
    seed: '1',
    policy: { version: 1, name: 'dense', mode: 'dense', scope: 'query_head' },
    ...changes,
  };
}
