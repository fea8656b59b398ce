-- How a search finds its cell; nothing for a retraining. Searches from before there was a choice were all of one kind.
ALTER TABLE jobs ADD COLUMN method TEXT;
UPDATE jobs SET method = 'darts' WHERE task = 'search';
