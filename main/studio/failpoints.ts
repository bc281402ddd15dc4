/**
 * Points between durable steps where a test may end the studio as a power cut would: the process with its parent where it is a
 * child. VMOBA_FAILPOINT="name" or "name:3" (the third time); without it nothing happens.
 */

export const failpoints = [
  'migration-executed',
  'migration-committed',
  'backup-written',
  'render-inserted',
  'render-started',
  'checkpoint-seen',
  'checkpoint-recorded',
  // In whatever process writes the file: complete under its temporary name; under its own.
  'file-written',
  'file-moved',
  'clip-moved',
  'poster-written',
  'maps-copied',
  'maps-written',
  'take-committed',
  'work-removed',
  'deletions-committed',
  'pause-recorded',
] as const;
export type Failpoint = (typeof failpoints)[number];

const [wanted, count] = (process.env['VMOBA_FAILPOINT'] ?? '').split(':');
const state = { left: Number(count ?? 1) };

export function failpoint(name: Failpoint): void {
  if (name !== wanted || --state.left > 0) return;
  const parent = Number(process.env['VMOBA_PARENT_PID']);
  if (parent > 0) process.kill(parent, 'SIGKILL');
  process.kill(process.pid, 'SIGKILL');
  // The signal may take a moment; nothing may happen in it.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
