/**
 * Points between durable steps where a test may end the process as a power cut would. VMOBA_FAILPOINT="name" or "name:3"
 * (the third time); without it nothing happens.
 */

export type Failpoint =
  | 'migration-executed'
  | 'migration-committed'
  | 'backup-written'
  | 'render-inserted'
  | 'render-started'
  | 'checkpoint-seen'
  | 'checkpoint-recorded'
  | 'clip-moved'
  | 'poster-written'
  | 'maps-written'
  | 'take-committed'
  | 'work-removed'
  | 'deletions-committed'
  | 'pause-recorded';

const [wanted, count] = (process.env['VMOBA_FAILPOINT'] ?? '').split(':');
const state = { left: Number(count ?? 1) };

export function failpoint(name: Failpoint): void {
  if (name !== wanted || --state.left > 0) return;
  process.kill(process.pid, 'SIGKILL');
  // The signal may take a moment; nothing may happen in it.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}
