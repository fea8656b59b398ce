-- What devices said, as it came and was acknowledged. It stays until it has been taken apart: into records and roll-ups.
CREATE TABLE intake (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at INTEGER NOT NULL,
    -- The same by the clock that does not jump.
    steady_at INTEGER NOT NULL,
    records INTEGER NOT NULL,
    messages BLOB NOT NULL,
    -- Could not be taken apart, and stays for somebody to look at.
    broken INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Ids of telemetry that was taken in, for as long as it may come again.
CREATE TABLE telemetry_ids (
    id TEXT PRIMARY KEY,
    came_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX telemetry_ids_by_time ON telemetry_ids (came_at);
INSERT INTO telemetry_ids (id, came_at) SELECT id, received_at FROM telemetry;

-- When records were taken in, by the clock that does not jump: what they are retired by.
ALTER TABLE events ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE feedback ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE telemetry ADD COLUMN stored_at INTEGER NOT NULL DEFAULT 0;
UPDATE events SET stored_at = received_at;
UPDATE feedback SET stored_at = received_at;
UPDATE telemetry SET stored_at = received_at;
CREATE INDEX events_rolled_back ON events (stored_at) WHERE kind = 'rolled_back';
CREATE INDEX feedback_without_request ON feedback (device, at) WHERE request IS NULL;

-- Statistics of a period (0 minute, 1 hour, 2 day) that begins at a time. No device is the fleet; an empty slot or version is
-- that of records that name none. By time first: what is written together lies together.
CREATE TABLE rollups (
    period INTEGER NOT NULL,
    at INTEGER NOT NULL,
    device TEXT NOT NULL,
    slot TEXT NOT NULL,
    version TEXT NOT NULL,
    stats BLOB NOT NULL,
    PRIMARY KEY (period, at, device, slot, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE incidents (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    severity TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    resolved_at INTEGER,
    -- An operator closed it while its cause was there.
    muted INTEGER NOT NULL DEFAULT 0,
    incident TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX incidents_open_once ON incidents (kind, subject) WHERE resolved_at IS NULL;
CREATE INDEX incidents_muted ON incidents (id) WHERE muted = 1;

CREATE TABLE device_groups (
    name TEXT PRIMARY KEY,
    selector TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Settings of the fleet that are changed while the server runs, as JSON.
CREATE TABLE fleet_settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
