-- The load ledger: how far the loaders have come with each object.
--
-- `loading` is written before the first insert and `loaded` after the last. A loader that finds `loading` knows
-- that an earlier attempt may have inserted some chunks, and asks the table which. version orders entries by
-- generation, whether it is loaded, attempt, and status, so a late `loading` never hides a `loaded`.
CREATE TABLE IF NOT EXISTS loads
(
    key         String,
    etag        String,
    generation  UInt32,
    status      Enum8('loading' = 1, 'loaded' = 2, 'failed' = 3, 'dead' = 4, 'dropped' = 5),
    pipeline    LowCardinality(String),
    rows        UInt64,
    bytes       UInt64,
    chunk_rows  UInt32, -- where the object is cut into inserts: the same in every attempt
    chunk_bytes UInt32,
    attempts    UInt32,
    error       String, -- of the previous attempt
    loader      String,
    received_at DateTime64(3, 'UTC'), -- of the newest event in the object
    started_at  DateTime64(3, 'UTC'),
    finished_at DateTime64(3, 'UTC'), -- 1970 during an attempt
    version     UInt64,
    refused     Array(UInt32), -- rows that the table refused; they are in `errors`
    failures    UInt32, -- attempts that failed through the object's own fault since it was last redriven
    unfinished  UInt32, -- attempts in a row that began and never ended: the loader was killed
    code        LowCardinality(String),
    job         String, -- the re-ingest that replaced it last
    reading     String, -- of a file that Penstock did not write: the mapping, and who decoded it
    first_fail  DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key;
