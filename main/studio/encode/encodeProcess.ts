/** Entry of the encoder process: FFmpeg's libraries run apart from everything that must survive a broken file. */
import { type CallContext, serve } from '../../engine/process/childHost.ts';
import type { EncodeMethods } from './encodeClient.ts';
import type { Encoder } from './encoder.ts';
import { openEncoder } from './openEncoder.ts';
import { readComment } from './readComment.ts';
import { extractFrame, transcode } from './transcode.ts';

const clips = new Map<number, Encoder>();
let nextClip = 1;

type Served = {
  [Name in keyof EncodeMethods]: (
    context: CallContext,
    ...args: Parameters<EncodeMethods[Name]>
  ) => Promise<ReturnType<EncodeMethods[Name]>>;
};

const methods: Served = {
  open: async (_, options) => {
    clips.set(nextClip, await openEncoder(options));
    return nextClip++;
  },
  write: (_, clip, rgb) => find(clip).write(rgb),
  finish: async (_, clip) => {
    const encoder = find(clip);
    clips.delete(clip);
    return encoder.finish();
  },
  abort: async (_, clip) => {
    const encoder = clips.get(clip);
    clips.delete(clip);
    await encoder?.abort();
  },
  readComment: (_, path, name) => readComment(path, name),
  transcode: ({ emit }, options) => transcode(options, emit),
  extractFrame: (_, source, frame, path) => extractFrame(source, frame, path),
};

serve(methods);

function find(clip: number): Encoder {
  const encoder = clips.get(clip);
  if (!encoder) throw new Error(`clip ${clip} is not open`);
  return encoder;
}
