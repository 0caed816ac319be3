-- What the rows of a file that Penstock did not write follow from, beside its
-- bytes: the mapping of the configuration, and who decoded it.
ALTER TABLE loads ADD COLUMN IF NOT EXISTS reading String AFTER job;
