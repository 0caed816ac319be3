-- What `penstock setup` of the last version before 0.1.0 left, as SHOW CREATE TABLE prints it.
CREATE TABLE migrations
(
    `name` String,
    `sha256` FixedString(64),
    `applied_at` DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY name
SETTINGS index_granularity = 8192;

CREATE TABLE events
(
    `event_id` UUID CODEC(ZSTD(1)),
    `project` LowCardinality(String),
    `name` LowCardinality(String),
    `timestamp` DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `identity_time` DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `received_at` DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)),
    `session_id` String CODEC(ZSTD(1)),
    `user_id` String CODEC(ZSTD(1)),
    `receiver` LowCardinality(String),
    `seq` UInt64 CODEC(T64, ZSTD(1)),
    `properties` JSON CODEC(ZSTD(3)) SETTINGS (max_compress_block_size = 4194304),
    `context` JSON CODEC(ZSTD(1)),
    `object` LowCardinality(String),
    `object_row` UInt32 CODEC(T64, ZSTD(1)),
    `generation` UInt32,
    INDEX timestamp_range timestamp TYPE minmax GRANULARITY 1,
    INDEX object_set object TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(received_at)
ORDER BY (project, name, identity_time, event_id)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192, vertical_merge_algorithm_min_columns_to_activate = 1;

CREATE TABLE errors
(
    `event_id` UUID CODEC(ZSTD(1)),
    `project` LowCardinality(String),
    `name` LowCardinality(String),
    `timestamp` DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `identity_time` DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    `received_at` DateTime64(3, 'UTC') CODEC(T64, ZSTD(1)),
    `session_id` String CODEC(ZSTD(1)),
    `user_id` String CODEC(ZSTD(1)),
    `receiver` LowCardinality(String),
    `seq` UInt64 CODEC(T64, ZSTD(1)),
    `properties` JSON(message String, raw String, raw_base64 String, request_id String, stage String) CODEC(ZSTD(3)) SETTINGS (max_compress_block_size = 4194304),
    `context` JSON CODEC(ZSTD(1)),
    `object` LowCardinality(String),
    `object_row` UInt32 CODEC(T64, ZSTD(1)),
    `time` DateTime64(3, 'UTC') ALIAS timestamp,
    `code` String ALIAS name,
    `stage` String ALIAS properties.stage,
    `message` String ALIAS properties.message,
    `raw` String ALIAS if(properties.raw_base64 = '', properties.raw, base64Decode(properties.raw_base64)),
    `request_id` String ALIAS properties.request_id,
    `method` String ALIAS ifNull(properties.method.:String, ''),
    `path` String ALIAS ifNull(properties.path.:String, ''),
    `content_type` String ALIAS ifNull(properties.content_type.:String, ''),
    `content_encoding` String ALIAS ifNull(properties.content_encoding.:String, ''),
    `index` Nullable(Int64) ALIAS properties.index.:Int64,
    `client_ip` String ALIAS ifNull(context.ip.:String, ''),
    `user_agent` String ALIAS ifNull(context.user_agent.:String, ''),
    `source_object` String ALIAS ifNull(properties.source_object.:String, ''),
    `source_row` Nullable(Int64) ALIAS properties.source_row.:Int64,
    `attempt` Int64 ALIAS ifNull(properties.attempt.:Int64, 0),
    `server_code` Int64 ALIAS ifNull(properties.server_code.:Int64, 0),
    `class` String ALIAS ifNull(properties.class.:String, ''),
    `raw_object` String ALIAS coalesce(properties.raw_object.:String, properties.raw_blob.`$blob`.object.:String, ''),
    `raw_sha256` String ALIAS coalesce(properties.raw_sha256.:String, properties.raw_blob.`$blob`.sha256.:String, ''),
    `raw_bytes` Int64 ALIAS ifNull(properties.raw_bytes.:Int64, length(raw)),
    `generation` UInt32,
    `raw_range` Array(Nullable(Int64)) ALIAS properties.raw_blob.`$blob`.range.:`Array(Nullable(Int64))`,
    INDEX timestamp_range timestamp TYPE minmax GRANULARITY 1,
    INDEX object_set object TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(received_at)
ORDER BY (project, name, identity_time, event_id)
SETTINGS non_replicated_deduplication_window = 10000, index_granularity = 8192, vertical_merge_algorithm_min_columns_to_activate = 1;

CREATE TABLE loads
(
    `key` String,
    `etag` String,
    `generation` UInt32,
    `status` Enum8('loading' = 1, 'loaded' = 2, 'failed' = 3, 'dead' = 4, 'dropped' = 5),
    `pipeline` LowCardinality(String),
    `rows` UInt64,
    `bytes` UInt64,
    `chunk_rows` UInt32,
    `chunk_bytes` UInt32,
    `attempts` UInt32,
    `error` String,
    `loader` String,
    `received_at` DateTime64(3, 'UTC'),
    `started_at` DateTime64(3, 'UTC'),
    `finished_at` DateTime64(3, 'UTC'),
    `version` UInt64,
    `refused` Array(UInt32),
    `failures` UInt32,
    `unfinished` UInt32,
    `code` LowCardinality(String),
    `job` String,
    `reading` String,
    `first_fail` DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(version)
ORDER BY key
SETTINGS index_granularity = 8192;

CREATE TABLE redriven
(
    `event_id` UUID,
    `redriven_at` DateTime64(3, 'UTC'),
    `accepted` UInt32,
    `rejected` UInt32,
    `request_id` String,
    `object` String,
    `code` String
)
ENGINE = ReplacingMergeTree(redriven_at)
ORDER BY event_id
SETTINGS index_granularity = 8192;

CREATE TABLE jobs
(
    `selection` String,
    `id` String,
    `started_at` DateTime64(3, 'UTC'),
    `updated_at` DateTime64(3, 'UTC'),
    `finished` Bool,
    `objects` UInt64,
    `rows` UInt64,
    `failed` UInt64
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (selection, id)
SETTINGS index_granularity = 8192;

CREATE TABLE llm_prices
(
    `model` String,
    `provider` LowCardinality(String),
    `input` Float64,
    `cached_input` Nullable(Float64),
    `output` Float64,
    `position` UInt32
)
ENGINE = MergeTree
ORDER BY position
SETTINGS index_granularity = 8192;

CREATE VIEW load_failures
(
    `time` DateTime64(3, 'UTC'),
    `object` String,
    `object_row` Nullable(Int64),
    `attempt` Int64,
    `class` String,
    `code` LowCardinality(String),
    `server_code` Int64,
    `message` String,
    `loader` String,
    `event_id` UUID
)
AS SELECT
    timestamp AS time,
    ifNull(properties.source_object.:String, '') AS object,
    properties.source_row.:Int64 AS object_row,
    ifNull(properties.attempt.:Int64, 0) AS attempt,
    ifNull(properties.class.:String, '') AS class,
    name AS code,
    ifNull(properties.server_code.:Int64, 0) AS server_code,
    properties.message AS message,
    ifNull(properties.loader.:String, '') AS loader,
    event_id
FROM errors
FINAL
WHERE properties.stage = 'loader';

CREATE VIEW events_once
(
    `event_id` UUID,
    `project` LowCardinality(String),
    `name` LowCardinality(String),
    `timestamp` DateTime64(3, 'UTC'),
    `identity_time` DateTime64(3, 'UTC'),
    `received_at` DateTime64(3, 'UTC'),
    `session_id` String,
    `user_id` String,
    `receiver` LowCardinality(String),
    `seq` UInt64,
    `properties` JSON,
    `context` JSON,
    `object` LowCardinality(String),
    `object_row` UInt32,
    `generation` UInt32
)
AS SELECT *
FROM events
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 0, asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1;

CREATE VIEW errors_once
(
    `event_id` UUID,
    `project` LowCardinality(String),
    `name` LowCardinality(String),
    `timestamp` DateTime64(3, 'UTC'),
    `identity_time` DateTime64(3, 'UTC'),
    `received_at` DateTime64(3, 'UTC'),
    `session_id` String,
    `user_id` String,
    `receiver` LowCardinality(String),
    `seq` UInt64,
    `properties` JSON(message String, raw String, raw_base64 String, request_id String, stage String),
    `context` JSON,
    `object` LowCardinality(String),
    `object_row` UInt32,
    `generation` UInt32,
    `time` DateTime64(3, 'UTC'),
    `code` String,
    `stage` String,
    `message` String,
    `raw` String,
    `request_id` String,
    `method` String,
    `path` String,
    `content_type` String,
    `content_encoding` String,
    `index` Nullable(Int64),
    `client_ip` String,
    `user_agent` String,
    `source_object` String,
    `source_row` Nullable(Int64),
    `attempt` Int64,
    `server_code` Int64,
    `class` String,
    `raw_object` String,
    `raw_sha256` String,
    `raw_bytes` Int64,
    `raw_range` Array(Nullable(Int64))
)
AS SELECT *
FROM errors
FINAL
SETTINGS do_not_merge_across_partitions_select_final = 0, asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1;

INSERT INTO migrations (name, sha256) VALUES
    ('0002_events.sql', '86bbf8af08b5ff328b22767710c18c2fed064187b29bde5a91af62d2feedab87'),
    ('0003_errors.sql', '809e250c5d608bc5d61097acb874be6566225c4f3e6251d2b079084e5cbef920'),
    ('0004_loads.sql', '7151c8433e47853b2379df19077a5c610398207fc7160d65b2f93642a5e651f8'),
    ('0005_errors.sql', 'df0af16c375bcce629e98b1f628b508b20940fb76893399685b59044f5f1da92'),
    ('0006_operations.sql', '45ef3555cd0ba813e47376702369955fd8f321b3a8ddeb8afa455cc99fe5a7bb'),
    ('0007_codecs.sql', '852212ca750311a14e7d5620020b3fc3c036d038cf69d8ce515fea7a5c5a13a0'),
    ('0008_llm.sql', '85e30cfcefa106ef2b1d450c33ee28ce82f61781fd4e4a9de8939bf6cb7ae82d'),
    ('0009_raw_blobs.sql', '30bdf379560ed102c643eb6ac359f2ecf0f8229fa5ef1cbfe90c038bc161c547'),
    ('0010_llm_counts.sql', 'b5d3c3b93e339cd333aabc3a42f550523dd505bb2a2becdd051bb313e1242eff'),
    ('0011_merges.sql', '0c3fe85bb99b515fbc2557ef71e95d5e8083cd9a512e91fa3b2f9d9b8171b335'),
    ('0012_imports.sql', '2fe31ade6de194e4d610a14f4c61984feb7dba4962bf0507b152d8a3ce70d7a3'),
    ('0014_once.sql', '9fcf94c1d4525cd0a6d43f1e04893b21bcd565173f86889cbdaf3085ac8571f0'),
    ('0020_unfinished.sql', '53d603daa95785c6e99ea7697e4f504fdc8a8fd1f1305b1ef5a4cc945fd9261a');
