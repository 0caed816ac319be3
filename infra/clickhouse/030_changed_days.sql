-- The days of events that inserts and deletions touched. Loaders write a day before the rows, and again if they
-- change it later, so `rollups refresh` knows which days it has to compute again.
CREATE TABLE IF NOT EXISTS changed_days
(
    day        Date COMMENT 'Day of timestamp, UTC',
    changed_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When rows of the day last changed, by the server''s clock'
)
ENGINE = ReplacingMergeTree(changed_at)
ORDER BY day
COMMENT 'Internal: days of events that changed';
