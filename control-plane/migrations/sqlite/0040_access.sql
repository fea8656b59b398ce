-- Users, their sessions and tokens, what they changed, and answers that are given again.

CREATE TABLE users (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    -- As argon2 writes it; none for whoever has no password.
    password TEXT,
    created_at INTEGER NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0,
    last_login_at INTEGER
) STRICT;

-- Whoever has the administrator's token.
INSERT INTO users (name, role, created_at) VALUES ('admin', 'admin', CAST(strftime('%s', 'now') AS INTEGER) * 1000);

CREATE TABLE sessions (
    -- SHA-256 of the secret.
    hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_by_owner ON sessions (owner, created_at);

CREATE TABLE api_tokens (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    owner TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    role TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT;

CREATE INDEX api_tokens_by_owner ON api_tokens (owner);

CREATE TABLE audit (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    role TEXT,
    operation TEXT NOT NULL,
    target TEXT NOT NULL,
    -- 0 while there is no answer.
    status INTEGER NOT NULL,
    peer TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_actor ON audit (actor, id);
CREATE INDEX audit_by_operation ON audit (operation, id);

CREATE TABLE idempotency (
    owner TEXT NOT NULL,
    idem_key TEXT NOT NULL,
    -- SHA-256 of what was asked.
    request TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- None while the request runs.
    status INTEGER,
    -- None where it holds a secret, which is given once.
    answer TEXT,
    PRIMARY KEY (owner, idem_key)
) STRICT;

CREATE INDEX idempotency_by_time ON idempotency (created_at);
