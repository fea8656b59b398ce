-- What a search may find, as JSON; nothing where it is what is usual for the data.
ALTER TABLE jobs ADD COLUMN space TEXT;
-- The judged network that a training takes, as in JOB:INDEX.
ALTER TABLE jobs ADD COLUMN point TEXT;
