-- One row for each event. Its identity is the sorting key, so that a resent event collapses into one row: at
-- once with FINAL, later by merges.
--
-- identity_time is the client's time, or else the time in a UUIDv7, or else 1970. It is never the time of receipt,
-- which differs in a resend. `timestamp` is the same, but for rows of 1970: these have the time of receipt.
--
-- Partitions are weeks of identity_time. So all copies of an event are in one partition: merges find them, and
-- FINAL need not look beyond a partition (ClickHouse sees that by itself, because the key has the column). Times
-- outside of 2010 to 2059 share the partition of 1970, because clients' clocks are years off. The expression is
-- also in internal/pipeline (Partition), because the loader cuts an object's rows into inserts of one partition.
-- The deduplication window makes insert_deduplication_token work; setup and load refuse a table without it.
--
-- If nothing has come into a partition for a day, its parts become one, which FINAL reads like any table.
--
-- On disk a game event of 408 bytes takes 61 bytes, and an LLM call of 5.5 KB takes 750:
--
-- properties  Two thirds of all bytes. ZSTD(3) costs inserts and merges as much as ZSTD(1) and is smaller.
--             Blocks of up to 4 MiB find a prompt that is repeated. A block never holds more than a granule, so
--             no query reads more for it. The most frequent 256 paths are columns of their own, all others
--             share one: each column is files in every part.
-- event_id    Random ids stay 16 bytes. Ids that begin with a time (UUIDv7, as the receiver makes them) shrink.
-- numbers     T64 drops the bits that no value of a block has. It is smaller than Delta whether or not the
--             values are in order.
--
-- Merges go column by column. ClickHouse does that only from 11 columns on that are neither in the key nor in a
-- skip index, and this table has fewer. It takes 4.4 CPU seconds per million events instead of 6.0 if the parts
-- hold the same seconds, and 2.0 if they follow each other, as they do at usual rates.
CREATE TABLE IF NOT EXISTS events
(
    event_id      UUID
                  COMMENT 'The id that the client sent or the receiver made. Other ids than UUIDs: see properties.event_id'
                  CODEC(ZSTD(1)),
    project       LowCardinality(String) COMMENT 'The project of the API key that sent the event',
    name          LowCardinality(String) COMMENT 'The name of the event, as level_start',
    timestamp     DateTime64(3, 'UTC')
                  COMMENT 'When it happened, by the client''s clock, UTC. Without one: the time of a UUIDv7, or of receipt'
                  CODEC(Delta, ZSTD(1)),
    identity_time DateTime64(3, 'UTC')
                  COMMENT 'Internal: timestamp, or 1970 if neither the client nor the id has a time. Use timestamp'
                  CODEC(Delta, ZSTD(1)),
    received_at   DateTime64(3, 'UTC')
                  COMMENT 'When the receiver accepted this copy of the event, UTC. It differs if the event is resent'
                  CODEC(T64, ZSTD(1)),
    session_id    String COMMENT 'The session, empty if the client sent none' CODEC(ZSTD(1)),
    user_id       String COMMENT 'The user, empty if the client sent none' CODEC(ZSTD(1)),
    receiver      LowCardinality(String) COMMENT 'Internal: the receiver that accepted this copy',
    seq           UInt64 COMMENT 'Internal: the number of this copy, rising within a receiver' CODEC(T64, ZSTD(1)),
    properties    JSON(max_dynamic_paths = 256)
                  COMMENT 'What the client sent beside the columns. Read a value of any type by num(properties.price) or text(properties.country)'
                  CODEC(ZSTD(3)) SETTINGS (max_compress_block_size = 4194304),
    context       JSON COMMENT 'What the receiver knows of the client: ip, user_agent and more' CODEC(ZSTD(1)),
    object        LowCardinality(String) COMMENT 'Internal: the object in the bucket that has this copy',
    object_row    UInt32 COMMENT 'Internal: its row in the object, from 0' CODEC(T64, ZSTD(1)),
    generation    UInt32
                  COMMENT 'Internal: a re-ingest writes the next generation and deletes the older ones',

    INDEX timestamp_range timestamp TYPE minmax GRANULARITY 1,
    INDEX received_range received_at TYPE minmax GRANULARITY 1,
    INDEX user_bloom user_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX session_bloom session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX event_bloom event_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX object_set object TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY if(identity_time >= toDateTime64('2010-01-01', 3, 'UTC')
    AND identity_time < toDateTime64('2060-01-01', 3, 'UTC'), toMonday(toDate(identity_time)), toDate(0))
ORDER BY (project, name, identity_time, event_id)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192,
    vertical_merge_algorithm_min_columns_to_activate = 1,
    min_age_to_force_merge_seconds = 86400, min_age_to_force_merge_on_partition_only = 1
COMMENT 'All events. A resent event may be here twice until a merge: ask the view events_once, which has each once';
