-- Which properties events have, and of which types. Loaders count the values while they build blocks, and add the
-- counts every few seconds.
--
-- Counts are approximate. They count a row again if an object is delivered again or replaced. They lack what a
-- killed loader had not written yet (some seconds), and rows that were sent as text (see docs/design/clickhouse.md).
--
-- A row whose path and type are empty counts the events of the name. If a project has more than 4,096 paths, the
-- others are counted together: `exp.*` stands for all further keys of `exp`, and `*` for any further path.
-- Paths within arrays of objects are not listed.
CREATE TABLE IF NOT EXISTS property_counts
(
    project    LowCardinality(String) COMMENT 'Project of the events',
    name       LowCardinality(String) COMMENT 'Name of the events; * stands for further names if a project has too many',
    path       String COMMENT 'Keys below properties, joined by dots; empty: the row counts events',
    type       LowCardinality(String) COMMENT 'Type of the values as they are stored',
    events     SimpleAggregateFunction(sum, UInt64) COMMENT 'Events with such a value; approximate',
    first_seen SimpleAggregateFunction(min, DateTime('UTC')) COMMENT 'When the first one was received',
    last_seen  SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'When the last one was received',
    example    SimpleAggregateFunction(anyLast, Nullable(String))
               COMMENT 'One of the values, its first 64 bytes; NULL: an array, an object, or clickhouse.catalogue_examples is false'
)
ENGINE = AggregatingMergeTree
ORDER BY (project, name, path, type)
COMMENT 'Which properties events have: the rows behind property_catalogue, several for one property until they are merged';
