-- The order of arrival is a column of its own, and so is what queries ask of JSON.
CREATE TABLE events_ordered (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    device TEXT NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    slot TEXT,
    bundle TEXT,
    kind TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
INSERT INTO events_ordered (number, id, device, at, received_at, slot, bundle, kind, detail)
    SELECT rowid, id, device, at, received_at, slot, bundle, kind, detail FROM events ORDER BY rowid;
DROP TABLE events;
ALTER TABLE events_ordered RENAME TO events;
CREATE INDEX events_by_device ON events (device, number);
CREATE INDEX events_by_time ON events (device, at);

CREATE TABLE feedback_ordered (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
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
INSERT INTO feedback_ordered (number, id, device, at, received_at, slot, version, request, kind, value, label)
    SELECT rowid, id, device, at, received_at, slot, version, request, kind, value, label FROM feedback ORDER BY rowid;
DROP TABLE feedback;
ALTER TABLE feedback_ordered RENAME TO feedback;
CREATE INDEX feedback_by_version ON feedback (version, at);
CREATE INDEX feedback_by_device ON feedback (device, number);
CREATE INDEX feedback_by_request ON feedback (device, request);
CREATE INDEX feedback_by_kind ON feedback (version, kind, device, received_at);

-- Of what a device claims no more than a sum can hold is counted.
CREATE TABLE telemetry_ordered (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    device TEXT NOT NULL,
    at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    version TEXT NOT NULL,
    slot TEXT NOT NULL,
    requests INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    latency_p99_us INTEGER,
    record TEXT NOT NULL
) STRICT;
INSERT INTO telemetry_ordered (number, id, device, at, received_at, version, slot, requests, failed, latency_p99_us, record)
    SELECT rowid, id, device, at, received_at, version, record ->> 'slot',
        CAST(min(record ->> 'requests', 1000000000) AS INTEGER),
        CAST(min(record ->> 'failed', record ->> 'requests', 1000000000) AS INTEGER),
        CAST(min(record ->> 'latency_p99_us', 9223372036854775807) AS INTEGER),
        record
    FROM telemetry ORDER BY rowid;
DROP TABLE telemetry;
ALTER TABLE telemetry_ordered RENAME TO telemetry;
CREATE INDEX telemetry_by_device ON telemetry (device, number);
CREATE INDEX telemetry_by_time ON telemetry (device, at);
CREATE INDEX telemetry_by_version ON telemetry (version, device, received_at);

ALTER TABLE rollout_members ADD COLUMN state TEXT NOT NULL DEFAULT '';
ALTER TABLE rollout_members ADD COLUMN wave INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollout_members ADD COLUMN finished_at INTEGER;
UPDATE rollout_members SET
    state = member ->> 'state', wave = member ->> 'wave', finished_at = member ->> 'finished_at';

-- Counts the changes of a rollout: a plan is carried out on the one that it was made for.
ALTER TABLE rollouts ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;

-- The generation that a device has said it has.
ALTER TABLE devices ADD COLUMN reported_generation INTEGER;
UPDATE devices SET reported_generation = reported ->> 'generation';

-- What devices shall run: the same as their assignments.
CREATE TABLE device_slots (
    device TEXT NOT NULL REFERENCES devices (id),
    slot TEXT NOT NULL,
    version TEXT NOT NULL,
    PRIMARY KEY (device, slot)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_slots_by_version ON device_slots (version, device);
INSERT INTO device_slots (device, slot, version)
    SELECT d.id, a.value ->> 'slot', a.value ->> 'version_id' FROM devices d, json_each(d.assignments) AS a;

-- The same as their labels.
CREATE TABLE device_labels (
    device TEXT NOT NULL REFERENCES devices (id),
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (device, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_labels_by_value ON device_labels (key, value, device);
INSERT INTO device_labels (device, key, value)
    SELECT d.id, l.key, l.value FROM devices d, json_each(d.labels) AS l;
CREATE INDEX devices_by_board ON devices (board, id);

-- The files of each version's bundle.
CREATE TABLE version_files (
    version TEXT NOT NULL REFERENCES versions (id),
    digest TEXT NOT NULL,
    PRIMARY KEY (version, digest)
) STRICT, WITHOUT ROWID;
INSERT INTO version_files (version, digest)
    SELECT DISTINCT v.id, f.value ->> 'digest' FROM versions v, json_each(v.files) AS f;
