/** What estimates and measured speed-ups rest on: timings of finished renders, and dense steps timed for comparison. */
export const sql = `
CREATE TABLE timings (
  row INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  -- Model fingerprint, device, threads, precision: timings of other machines' kinds never mix.
  model TEXT NOT NULL,
  machine TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  source TEXT NOT NULL CHECK (source IN ('render', 'calibration')),
  -- JSON: see TimingSample in main/studio/estimates/timings.ts.
  sample TEXT NOT NULL CHECK (json_valid(sample))
) STRICT;
CREATE INDEX timings_by_machine ON timings(machine, model, at);

CREATE TABLE dense_steps (
  -- Model fingerprint, size, guidance and machine.
  key TEXT PRIMARY KEY,
  seconds REAL NOT NULL,
  at INTEGER NOT NULL
) STRICT;
`;
