-- A day is marked as changed before its rows come. If no part has come since it was computed, it is up to date.
ALTER TABLE rollup_days ADD COLUMN IF NOT EXISTS seen UInt64
    COMMENT 'Hash of the parts of events that it was computed from' AFTER as_of;
