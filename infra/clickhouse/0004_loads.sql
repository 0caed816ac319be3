-- The ledger: for each object the furthest that a loader has come with it.
-- `loading` is written before the first insert, `loaded` after the last, so a
-- loader that finds `loading` knows that an earlier attempt may have inserted
-- some chunks, and asks the table which. version = generation, then how far
-- (loading 1, loaded 2), then the attempt: a late `loading` never hides a `loaded`.
CREATE TABLE IF NOT EXISTS loads
(
    key         String,
    etag        String,
    generation  UInt32,
    status      Enum8('loading' = 1, 'loaded' = 2),
    pipeline    LowCardinality(String),
    rows        UInt64,
    bytes       UInt64,
    chunk_rows  UInt32, -- where the object is cut into inserts: the same on every attempt
    chunk_bytes UInt32,
    attempts    UInt32,
    error       String, -- of the attempt before
    loader      String,
    received_at DateTime64(3, 'UTC'), -- of the newest event in the object
    started_at  DateTime64(3, 'UTC'),
    finished_at DateTime64(3, 'UTC'),
    version     UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key;
