-- Times are milliseconds since the Unix epoch. Digests are 64 hexadecimal digits. JSON columns hold wire types.
CREATE TABLE datasets (
    id TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    schema TEXT NOT NULL,
    registered_at INTEGER NOT NULL
) STRICT;

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    model TEXT NOT NULL,
    dataset TEXT NOT NULL REFERENCES datasets (id),
    board TEXT NOT NULL,
    seed INTEGER NOT NULL,
    threads INTEGER NOT NULL,
    budget TEXT NOT NULL,
    parent TEXT,
    state TEXT NOT NULL,
    progress TEXT NOT NULL,
    error TEXT,
    version TEXT,
    report TEXT,
    cell TEXT,
    pid INTEGER,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, id);

CREATE TABLE versions (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    major INTEGER NOT NULL,
    minor INTEGER NOT NULL,
    board TEXT NOT NULL,
    dataset TEXT,
    state TEXT NOT NULL,
    -- What it was before it became a canary.
    before_canary TEXT NOT NULL DEFAULT 'draft',
    bundle TEXT NOT NULL,
    bundle_bytes INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    job TEXT UNIQUE,
    parent TEXT,
    check_skipped INTEGER NOT NULL,
    report TEXT,
    files TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (model, major, minor)
) STRICT;

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    board TEXT NOT NULL,
    agent_version TEXT NOT NULL,
    labels TEXT NOT NULL,
    online INTEGER NOT NULL,
    enrolled_at INTEGER NOT NULL,
    seen_at INTEGER,
    revoked_at INTEGER,
    generation INTEGER NOT NULL,
    assignments TEXT NOT NULL,
    -- When the generation was made, and with which chunk size: signed again it gives the same bytes.
    desired_at INTEGER NOT NULL DEFAULT 0,
    chunk_bytes INTEGER NOT NULL DEFAULT 65536,
    reported TEXT
) STRICT;

-- Which desired states have to be with the broker: read at every tick, never from the wide rows.
CREATE INDEX devices_by_generation ON devices (id, generation) WHERE generation > 0 AND revoked_at IS NULL;

CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    device TEXT NOT NULL REFERENCES devices (id),
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE INDEX certificates_by_device ON certificates (device);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    device TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    used_by TEXT
) STRICT;

CREATE TABLE events (
    id TEXT PRIMARY KEY,
    device TEXT NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    slot TEXT,
    bundle TEXT,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_device ON events (device);
CREATE INDEX events_by_time ON events (device, at);

CREATE TABLE feedback (
    id TEXT PRIMARY KEY,
    device TEXT NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    slot TEXT NOT NULL,
    version TEXT NOT NULL,
    request TEXT,
    kind TEXT NOT NULL,
    value REAL,
    label TEXT
) STRICT;
CREATE INDEX feedback_by_version ON feedback (version, at);
CREATE INDEX feedback_by_device ON feedback (device);
CREATE INDEX feedback_by_request ON feedback (device, request);

CREATE TABLE telemetry (
    id TEXT PRIMARY KEY,
    device TEXT NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    version TEXT NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX telemetry_by_device ON telemetry (device);
CREATE INDEX telemetry_by_time ON telemetry (device, at);

-- How many events, feedback and telemetry records of a device are there; the oldest go when it has too many.
CREATE TABLE kept_records (
    device TEXT NOT NULL,
    kind TEXT NOT NULL,
    kept INTEGER NOT NULL,
    PRIMARY KEY (device, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;

CREATE TABLE security_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL,
    count INTEGER NOT NULL
) STRICT;
CREATE INDEX security_events_by_kind ON security_events (kind, id);

CREATE TABLE rollouts (
    id TEXT PRIMARY KEY,
    version TEXT NOT NULL REFERENCES versions (id),
    slot TEXT NOT NULL,
    selector TEXT NOT NULL,
    policy TEXT NOT NULL,
    trial TEXT NOT NULL,
    state TEXT NOT NULL,
    status TEXT NOT NULL,
    bytes_published INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
CREATE INDEX rollouts_by_state ON rollouts (state, id);
CREATE INDEX rollouts_by_version ON rollouts (version, state);

CREATE TABLE rollout_members (
    rollout TEXT NOT NULL REFERENCES rollouts (id),
    device TEXT NOT NULL,
    member TEXT NOT NULL,
    -- What was in the slot before; JSON of an assignment, or null.
    previous TEXT,
    PRIMARY KEY (rollout, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollout_history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    rollout TEXT NOT NULL REFERENCES rollouts (id),
    at INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX rollout_history_by_rollout ON rollout_history (rollout, id);
