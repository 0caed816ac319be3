-- How many attempts at an object began and never ended, one after the other: the
-- loader was killed, perhaps by the object. finished_at of an attempt that
-- is under way is 1970.
ALTER TABLE loads ADD COLUMN IF NOT EXISTS unfinished UInt32 AFTER failures;
