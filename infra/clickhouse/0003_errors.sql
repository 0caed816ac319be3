-- The mirror: what was refused is an event of the errors pipeline. Its name is
-- the code; the failure itself is in properties, under the paths that are typed
-- here, and the aliases give them plain names. `raw` is what the client sent.
CREATE TABLE IF NOT EXISTS errors
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
    properties    JSON(stage String, message String, raw String, raw_base64 String, request_id String),
    context       JSON,
    object        LowCardinality(String),
    object_row    UInt32 CODEC(Delta, ZSTD(1)),

    time          DateTime64(3, 'UTC') ALIAS timestamp,
    code          String ALIAS name,
    stage         String ALIAS properties.stage,
    message       String ALIAS properties.message,
    raw           String ALIAS if(properties.raw_base64 = '', properties.raw, base64Decode(properties.raw_base64)),

    INDEX timestamp_range timestamp TYPE minmax GRANULARITY 1,
    INDEX object_set object TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(received_at)
ORDER BY (project, name, identity_time, event_id)
SETTINGS non_replicated_deduplication_window = 10000;
