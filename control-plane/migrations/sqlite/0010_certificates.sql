-- Digest of the CA that issued a certificate, and when the device first showed it.
ALTER TABLE certificates ADD COLUMN authority TEXT NOT NULL DEFAULT '';
ALTER TABLE certificates ADD COLUMN used_at INTEGER;
-- Digest of the public key that a token was used for: the same key may use it again, so that a lost answer costs nothing.
ALTER TABLE tokens ADD COLUMN used_key TEXT;
