-- A rejected event is an event of the errors pipeline, so this table has the columns of `events`; see there.
-- Its name is the error code. The failure is in properties: the paths that every failure has are typed, and
-- aliases give all of them plain names. What a failure does not have is empty or 0, or NULL if 0 means something.
--
-- `raw` is what the client sent. Beyond errors.blob_threshold it is empty, and the bytes are a blob: raw_object
-- is the key of its object, raw_range its first and last byte there, raw_sha256 their hash. If raw_range is
-- empty, the whole object is the blob.
CREATE TABLE IF NOT EXISTS errors
(
    event_id         UUID COMMENT 'The id of the failure' CODEC(ZSTD(1)),
    project          LowCardinality(String) COMMENT 'The project of the API key, empty if the request had none',
    name             LowCardinality(String) COMMENT 'The error code, see also code',
    timestamp        DateTime64(3, 'UTC') COMMENT 'When it failed, UTC' CODEC(Delta, ZSTD(1)),
    identity_time    DateTime64(3, 'UTC')
                     COMMENT 'Internal: the time in the sorting key. Use timestamp' CODEC(Delta, ZSTD(1)),
    received_at      DateTime64(3, 'UTC')
                     COMMENT 'When this copy of the failure was recorded, UTC' CODEC(T64, ZSTD(1)),
    session_id       String COMMENT 'Not used' CODEC(ZSTD(1)),
    user_id          String COMMENT 'Not used' CODEC(ZSTD(1)),
    receiver         LowCardinality(String) COMMENT 'Internal: the process that recorded this copy',
    seq              UInt64 COMMENT 'Internal: the number of this copy, rising within a receiver' CODEC(T64, ZSTD(1)),
    properties       JSON(stage String, message String, raw String, raw_base64 String, request_id String)
                     COMMENT 'The failure. The columns below give its members plain names'
                     CODEC(ZSTD(3)) SETTINGS (max_compress_block_size = 4194304),
    context          JSON
                     COMMENT 'What the receiver knows of the client: ip, user_agent and more' CODEC(ZSTD(1)),
    object           LowCardinality(String) COMMENT 'Internal: the object in the bucket that has this copy',
    object_row       UInt32 COMMENT 'Internal: its row in the object, from 0' CODEC(T64, ZSTD(1)),

    time             DateTime64(3, 'UTC') ALIAS timestamp COMMENT 'When it failed, UTC',
    code             String ALIAS name COMMENT 'The error code, as invalid_json',
    stage            String ALIAS properties.stage COMMENT 'Where it failed: receiver or loader',
    message          String ALIAS properties.message COMMENT 'What failed, in words',
    raw              String ALIAS if(properties.raw_base64 = '', properties.raw, base64Decode(properties.raw_base64))
                     COMMENT 'What the client sent. Empty if it is in a blob: see raw_object',
    request_id       String ALIAS properties.request_id COMMENT 'The id in the receiver''s answer',
    method           String ALIAS ifNull(properties.method.:String, '') COMMENT 'The HTTP method',
    path             String ALIAS ifNull(properties.path.:String, '') COMMENT 'The path of the request',
    content_type     String ALIAS ifNull(properties.content_type.:String, '') COMMENT 'The header Content-Type',
    content_encoding String ALIAS ifNull(properties.content_encoding.:String, '')
                     COMMENT 'The header Content-Encoding',
    `index`          Nullable(Int64) ALIAS properties.`index`.:Int64
                     COMMENT 'The place of the event in its request, from 0; NULL: the request as a whole',
    client_ip        String ALIAS ifNull(context.ip.:String, '') COMMENT 'The address of the client',
    user_agent       String ALIAS ifNull(context.user_agent.:String, '') COMMENT 'The header User-Agent',
    source_object    String ALIAS ifNull(properties.source_object.:String, '')
                     COMMENT 'Of a failed load: the object that could not be loaded',
    source_row       Nullable(Int64) ALIAS properties.source_row.:Int64
                     COMMENT 'Of a failed load: the row; NULL: the object as a whole',
    attempt          Int64 ALIAS ifNull(properties.attempt.:Int64, 0) COMMENT 'Of a failed load: the attempt',
    server_code      Int64 ALIAS ifNull(properties.server_code.:Int64, 0)
                     COMMENT 'Of a failed load: ClickHouse''s error code',
    class            String ALIAS ifNull(properties.class.:String, '')
                     COMMENT 'Of a failed load: permanent, outage or unknown',
    raw_object       String ALIAS
                     coalesce(properties.raw_object.:String, properties.raw_blob.`$blob`.object.:String, '')
                     COMMENT 'The object that has the raw payload, if that is large',
    raw_sha256       String ALIAS
                     coalesce(properties.raw_sha256.:String, properties.raw_blob.`$blob`.sha256.:String, '')
                     COMMENT 'The SHA-256 of the raw payload',
    raw_bytes        Int64 ALIAS ifNull(properties.raw_bytes.:Int64, length(raw))
                     COMMENT 'The size of the raw payload',
    generation       UInt32
                     COMMENT 'Internal: a re-ingest writes the next generation and deletes the older ones',
    raw_range        Array(Nullable(Int64)) ALIAS properties.raw_blob.`$blob`.`range`.:`Array(Nullable(Int64))`
                     COMMENT 'The first and the last byte of the raw payload in raw_object; empty: all of it',

    INDEX timestamp_range timestamp TYPE minmax GRANULARITY 1,
    INDEX received_range received_at TYPE minmax GRANULARITY 1,
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
COMMENT 'Rejected events and requests, and failed loads. One may be here twice until a merge: ask errors_once';
