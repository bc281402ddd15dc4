/**
 * What an error means for the person, and what to do. The studio's own sentence stands between the two; the advice is empty
 * only where no general one can be given and that sentence always holds its own.
 */
import type { StudioErrorCode } from '../../contract/errors.ts';

interface ErrorText {
  title: string;
  advice: string;
}

const engineGone: ErrorText = {
  title: 'The engine stopped',
  advice: 'The render goes on from its last finished step.',
};

export const errorTexts: Record<StudioErrorCode, ErrorText> = {
  'bad-request': { title: 'That cannot be rendered as asked', advice: '' },
  'bad-model-file': {
    title: 'The model file cannot be used',
    advice: 'Import or download the model again, or choose another one.',
  },
  cancelled: { title: 'Cancelled', advice: 'Retry it whenever you like.' },
  'out-of-memory': {
    title: 'Not enough memory',
    advice: 'Choose a smaller size, fewer frames, or raise the memory limit in Settings.',
  },
  io: {
    title: 'A file could not be read or written',
    advice: 'See that its disk is there and can be written, then retry.',
  },
  unsupported: { title: 'Not possible here', advice: '' },
  'numerical-fault': {
    title: 'The render ran into invalid numbers',
    advice: 'Try another seed, lower guidance, or the reference policy.',
  },
  'device-lost': { title: 'The device was lost', advice: 'Retry, or choose another device in Settings.' },
  internal: { title: 'Something went wrong in the studio', advice: 'Try again; if it comes back, restart the studio.' },
  'engine-unavailable': {
    title: 'The engine cannot start',
    advice: 'Restart it in Settings; if that does not help, install the studio again.',
  },
  'engine-crashed': engineGone,
  'engine-hung': { title: 'The engine did not answer and was ended', advice: engineGone.advice },
  'engine-stopped': engineGone,
  'encoder-crashed': {
    title: 'Writing the clip failed',
    advice: 'Retry: sampling is kept and only the clip is written again.',
  },
  'encoder-hung': {
    title: 'Writing the clip took too long',
    advice: 'Retry: sampling is kept and only the clip is written again.',
  },
  'encoder-stopped': {
    title: 'Writing the clip was stopped',
    advice: 'Retry: sampling is kept and only the clip is written again.',
  },
  'bad-clip-file': { title: 'That file is no clip that can be read', advice: '' },
  'disk-full': { title: 'The disk is full', advice: 'Make room, then retry; finished steps are kept.' },
  'not-found': {
    title: 'That is not there any more',
    advice: 'It may have been removed in another window: look at the list again.',
  },
  'download-failed': { title: 'The download failed', advice: 'What has come is kept: start it again to go on.' },
  'library-newer': { title: 'The library was written by a newer studio', advice: 'Update this one to open it.' },
  'library-corrupt': { title: 'The library is damaged', advice: 'Restore it from the last backup.' },
  'library-locked': {
    title: 'Another program has the library open',
    advice: 'Close that program, or work in its window.',
  },
  conflict: { title: 'Not possible right now', advice: '' },
  closing: { title: 'The studio is closing', advice: 'Start it again: renders go on where they stopped.' },
  unauthorized: {
    title: 'This page is not let in',
    advice: 'Open the address that the studio printed when it started.',
  },
  'too-large': { title: 'Too large', advice: '' },
  'rate-limited': { title: 'Too many requests', advice: 'Wait a moment and try again.' },
  disconnected: { title: 'The studio does not answer', advice: 'Renders go on without this window.' },
};
