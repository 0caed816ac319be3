-- A rejected event is an event of the errors pipeline, so this table has the columns of `events`; see there.
-- Its name is the error code. The failure is in properties: the paths that every failure has are typed, and
-- aliases give all of them plain names. What a failure does not have is empty or 0, or NULL if 0 means something.
--
-- `raw` is what the client sent. Beyond errors.blob_threshold it is empty, and the bytes are a blob: raw_object
-- is the key of its object, raw_range its first and last byte there, raw_sha256 their hash. If raw_range is
-- empty, the whole object is the blob.
CREATE TABLE IF NOT EXISTS errors
(
    event_id         UUID CODEC(ZSTD(1)),
    project          LowCardinality(String),
    name             LowCardinality(String),
    timestamp        DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    identity_time    DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at      DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)),
    session_id       String CODEC(ZSTD(1)),
    user_id          String CODEC(ZSTD(1)),
    receiver         LowCardinality(String),
    seq              UInt64 CODEC(T64, ZSTD(1)),
    properties       JSON(stage String, message String, raw String, raw_base64 String, request_id String)
                     CODEC(ZSTD(3)) SETTINGS (max_compress_block_size = 4194304),
    context          JSON CODEC(ZSTD(1)),
    object           LowCardinality(String),
    object_row       UInt32 CODEC(T64, ZSTD(1)),

    time             DateTime64(3, 'UTC') ALIAS timestamp,
    code             String ALIAS name,
    stage            String ALIAS properties.stage,
    message          String ALIAS properties.message,
    raw              String ALIAS if(properties.raw_base64 = '', properties.raw, base64Decode(properties.raw_base64)),
    request_id       String ALIAS properties.request_id,
    method           String ALIAS ifNull(properties.method.:String, ''),
    path             String ALIAS ifNull(properties.path.:String, ''),
    content_type     String ALIAS ifNull(properties.content_type.:String, ''),
    content_encoding String ALIAS ifNull(properties.content_encoding.:String, ''),
    `index`          Nullable(Int64) ALIAS properties.`index`.:Int64,
    client_ip        String ALIAS ifNull(context.ip.:String, ''),
    user_agent       String ALIAS ifNull(context.user_agent.:String, ''),
    source_object    String ALIAS ifNull(properties.source_object.:String, ''),
    source_row       Nullable(Int64) ALIAS properties.source_row.:Int64,
    attempt          Int64 ALIAS ifNull(properties.attempt.:Int64, 0),
    server_code      Int64 ALIAS ifNull(properties.server_code.:Int64, 0),
    class            String ALIAS ifNull(properties.class.:String, ''),
    raw_object       String ALIAS coalesce(properties.raw_object.:String, properties.raw_blob.`$blob`.object.:String, ''),
    raw_sha256       String ALIAS coalesce(properties.raw_sha256.:String, properties.raw_blob.`$blob`.sha256.:String, ''),
    raw_bytes        Int64 ALIAS ifNull(properties.raw_bytes.:Int64, length(raw)),
    generation       UInt32,
    raw_range        Array(Nullable(Int64)) ALIAS properties.raw_blob.`$blob`.`range`.:`Array(Nullable(Int64))`,

    INDEX timestamp_range timestamp TYPE minmax GRANULARITY 1,
    INDEX object_set object TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(received_at)
ORDER BY (project, name, identity_time, event_id)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192,
    vertical_merge_algorithm_min_columns_to_activate = 1;
