/** Render requests for tests. */
import { policyPresets } from '../../contract/attentionPolicy.ts';
import type { RenderRequest } from '../../contract/renderRequest.ts';

export function renderRequest(model: string, changes: Partial<RenderRequest> = {}): RenderRequest {
  return {
    model,
    prompt: 'a red ball',
    negativePrompt: '',
    width: 32,
    height: 16,
    frames: 5,
    fps: 8,
    steps: 4,
    guidanceScale: 3,
    shift: 2,
    scheduler: 'unipc',
    seed: '1',
    policy: policyPresets.dense,
    ...changes,
  };
}
