-- The last results of verify outlive the process that ran it. A record of jobs is the last run with, or the last run
-- without differences.
ALTER TABLE jobs ADD COLUMN IF NOT EXISTS detail String
    COMMENT 'Of verify: its result, as JSON' AFTER failed;
