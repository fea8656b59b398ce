-- Deltas between files that were made, each once; without a blob where one is not worth its bytes.
CREATE TABLE deltas (
    from_digest TEXT NOT NULL,
    to_digest TEXT NOT NULL,
    delta TEXT,
    bytes INTEGER,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (from_digest, to_digest)
) STRICT;
CREATE INDEX deltas_by_file ON deltas (to_digest);
