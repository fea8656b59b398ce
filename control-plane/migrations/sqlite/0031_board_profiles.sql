-- What each device was asked to measure last, and what it answered so far.
CREATE TABLE profiles (
    device TEXT PRIMARY KEY REFERENCES devices (id),
    -- Of the board that the device was of when it was asked.
    board TEXT NOT NULL,
    generation INTEGER NOT NULL,
    asked_at INTEGER NOT NULL,
    workloads TEXT NOT NULL,
    report TEXT,
    received_at INTEGER,
    complete INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX profiles_by_board ON profiles (board, device);

-- What was known of the board's latency when the job was queued: a job stays the same when more is measured.
ALTER TABLE jobs ADD COLUMN latency TEXT;
