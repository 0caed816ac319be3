-- The days that each rollup has computed.
CREATE TABLE IF NOT EXISTS rollup_days
(
    rollup       LowCardinality(String) COMMENT 'Table of the rollup',
    day          Date COMMENT 'Day, UTC; 1970-01-01 stands for the rollup as a whole',
    definition   String COMMENT 'Hash of the query that computed it',
    as_of        DateTime64(3, 'UTC') COMMENT 'All changes of events before are in it',
    refreshed_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was computed',
    rows         UInt64 COMMENT 'Rows of the day',
    seconds      Float64 COMMENT 'Time that it took'
)
ENGINE = ReplacingMergeTree(refreshed_at)
ORDER BY (rollup, day)
COMMENT 'Internal: what rollups have computed, and when';
