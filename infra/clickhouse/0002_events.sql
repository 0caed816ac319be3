-- One row an event. Its identity is the sorting key, so that a client's resend
-- collapses (at once with FINAL, in time by merges).
--
-- identity_time is the client's timestamp, and 1970 where the client gave an id
-- but no time: `timestamp` is then the time it was received, which a resend
-- changes. Queries use `timestamp`; the minmax index makes it as good as a
-- part of the key.
--
-- Partitions are days of the server's time: clients' clocks are years off.
-- The window makes insert_deduplication_token work at all; setup and load
-- refuse a table without it.
CREATE TABLE IF NOT EXISTS events
(
    event_id      UUID,
    project       LowCardinality(String),
    name          LowCardinality(String),
    timestamp     DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    identity_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at   DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    session_id    String CODEC(ZSTD(1)),
    user_id       String CODEC(ZSTD(1)),
    receiver      LowCardinality(String),
    seq           UInt64 CODEC(Delta, ZSTD(1)),
    properties    JSON,
    context       JSON,
    object        LowCardinality(String), -- the key of the object that the row came in
    object_row    UInt32 CODEC(Delta, ZSTD(1)), -- its place there, from 0

    INDEX timestamp_range timestamp TYPE minmax GRANULARITY 1,
    INDEX object_set object TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(received_at)
ORDER BY (project, name, identity_time, event_id)
SETTINGS non_replicated_deduplication_window = 10000;
