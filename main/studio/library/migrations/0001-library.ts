/** Projects, renders, takes, presets, models, settings. Times are milliseconds since 1970; paths are relative to the library. */
export const sql = `
CREATE TABLE projects (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  trashed_at INTEGER
) STRICT;

CREATE TABLE renders (
  id TEXT PRIMARY KEY,
  project_id TEXT NOT NULL REFERENCES projects(id),
  state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled')),
  kind TEXT NOT NULL CHECK (kind IN ('final', 'draft')),
  settings TEXT NOT NULL CHECK (json_valid(settings)),
  output TEXT NOT NULL CHECK (json_valid(output)),
  model_id TEXT NOT NULL GENERATED ALWAYS AS (json_extract(settings, '$.model')) STORED,
  position REAL NOT NULL,
  sweep_id TEXT,
  source_take_id TEXT,
  steps_done INTEGER NOT NULL DEFAULT 0,
  error TEXT CHECK (error IS NULL OR json_valid(error)),
  engine_crashes INTEGER NOT NULL DEFAULT 0,
  warnings TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(warnings)),
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  ended_at INTEGER,
  removed_at INTEGER
) STRICT;
CREATE INDEX renders_in_queue ON renders(state, position) WHERE removed_at IS NULL;
CREATE INDEX renders_newest ON renders(state, id) WHERE removed_at IS NULL;
CREATE INDEX renders_in_order ON renders(position) WHERE removed_at IS NULL;
CREATE INDEX renders_by_project ON renders(project_id, state);
CREATE INDEX renders_by_sweep ON renders(sweep_id) WHERE sweep_id IS NOT NULL;
CREATE INDEX renders_removed ON renders(removed_at) WHERE removed_at IS NOT NULL;

-- One compressed blob per render: never a row per step or head.
CREATE TABLE render_statistics (
  render_id TEXT PRIMARY KEY REFERENCES renders(id) ON DELETE CASCADE,
  statistics BLOB NOT NULL
) STRICT;

CREATE TABLE takes (
  row INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  render_id TEXT NOT NULL UNIQUE REFERENCES renders(id),
  project_id TEXT NOT NULL REFERENCES projects(id),
  name TEXT NOT NULL,
  prompt TEXT NOT NULL,
  favourite INTEGER NOT NULL DEFAULT 0 CHECK (favourite IN (0, 1)),
  kind TEXT NOT NULL CHECK (kind IN ('final', 'draft')),
  settings TEXT NOT NULL CHECK (json_valid(settings)),
  model_id TEXT NOT NULL,
  model_name TEXT NOT NULL,
  file TEXT NOT NULL UNIQUE,
  poster TEXT,
  maps TEXT,
  clip TEXT NOT NULL CHECK (json_valid(clip)),
  latent_hash TEXT NOT NULL,
  frames_hash TEXT NOT NULL,
  bit_identical INTEGER NOT NULL CHECK (bit_identical IN (0, 1)),
  difference_reason TEXT,
  render_seconds REAL NOT NULL,
  peak_bytes REAL NOT NULL,
  mean_density REAL,
  speedup TEXT NOT NULL CHECK (json_valid(speedup)),
  file_exists INTEGER NOT NULL DEFAULT 1 CHECK (file_exists IN (0, 1)),
  created_at INTEGER NOT NULL,
  trashed_at INTEGER
) STRICT;
CREATE INDEX takes_newest ON takes(created_at, row) WHERE trashed_at IS NULL;
CREATE INDEX takes_by_name ON takes(name, row) WHERE trashed_at IS NULL;
CREATE INDEX takes_by_project ON takes(project_id, created_at);
CREATE INDEX takes_trashed ON takes(trashed_at) WHERE trashed_at IS NOT NULL;

-- Files whose rows are gone: deleted after the commit, and again at the next start where that was interrupted.
CREATE TABLE file_deletions (path TEXT PRIMARY KEY) STRICT;

CREATE TABLE presets (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('settings', 'policy', 'negative-prompt')),
  name TEXT NOT NULL,
  value TEXT NOT NULL CHECK (json_valid(value)),
  created_at INTEGER NOT NULL,
  UNIQUE (kind, name)
) STRICT;

CREATE TABLE models (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  folder TEXT NOT NULL,
  origin TEXT NOT NULL CHECK (origin IN ('embedded', 'reference', 'copy', 'download')),
  licence TEXT,
  fingerprint TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  card TEXT NOT NULL CHECK (json_valid(card)),
  hashes TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(hashes)),
  added_at INTEGER NOT NULL
) STRICT;

CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL CHECK (json_valid(value))) STRICT;
`;
