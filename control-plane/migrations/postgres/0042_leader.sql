-- Which of several servers acts, until when by the database's clock, and for the how manyth time somebody does.
CREATE TABLE leader (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    holder TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- Its broker lives in its own process.
    embedded BIGINT NOT NULL
);
INSERT INTO leader (id, holder, epoch, expires_at, embedded) VALUES (1, '', 0, 0, 0);

-- Whom other servers have revoked is looked up again and again.
CREATE INDEX devices_revoked ON devices (id) WHERE revoked_at IS NOT NULL;
