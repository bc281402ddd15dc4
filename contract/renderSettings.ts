/** What a client asks of one render: a render request whose model is named by id. */
import { z } from 'zod';
import { modelId, rateFactor, takeFormat } from './common.ts';
import { renderRequest } from './renderRequest.ts';

export const renderSettings = z.strictObject({ ...renderRequest.shape, model: modelId });

export type RenderSettings = z.infer<typeof renderSettings>;

/** Changes to settings: what is left out stays. */
export const settingsChanges = renderSettings.partial();

/** How the clip is written. */
export const renderOutput = z.strictObject({
  format: takeFormat.default('mp4'),
  rateFactor: rateFactor.optional(),
});

export type RenderOutput = z.infer<typeof renderOutput>;
