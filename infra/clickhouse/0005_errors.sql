-- Plain names for what a failure holds besides its code, and the failures of
-- loads as a table of their own. What a failure does not have is empty or 0;
-- where 0 says something, it is NULL.
--
-- `raw` is empty where the raw bytes are a blob: raw_object is then its key,
-- and raw_sha256 what it must hold.
ALTER TABLE errors
    ADD COLUMN IF NOT EXISTS request_id String ALIAS properties.request_id,
    ADD COLUMN IF NOT EXISTS method String ALIAS ifNull(properties.method.:String, ''),
    ADD COLUMN IF NOT EXISTS path String ALIAS ifNull(properties.path.:String, ''),
    ADD COLUMN IF NOT EXISTS content_type String ALIAS ifNull(properties.content_type.:String, ''),
    ADD COLUMN IF NOT EXISTS content_encoding String ALIAS ifNull(properties.content_encoding.:String, ''),
    ADD COLUMN IF NOT EXISTS `index` Nullable(Int64) ALIAS properties.`index`.:Int64,
    ADD COLUMN IF NOT EXISTS client_ip String ALIAS ifNull(context.ip.:String, ''),
    ADD COLUMN IF NOT EXISTS user_agent String ALIAS ifNull(context.user_agent.:String, ''),
    ADD COLUMN IF NOT EXISTS source_object String ALIAS ifNull(properties.source_object.:String, ''),
    ADD COLUMN IF NOT EXISTS source_row Nullable(Int64) ALIAS properties.source_row.:Int64,
    ADD COLUMN IF NOT EXISTS attempt Int64 ALIAS ifNull(properties.attempt.:Int64, 0),
    ADD COLUMN IF NOT EXISTS server_code Int64 ALIAS ifNull(properties.server_code.:Int64, 0),
    ADD COLUMN IF NOT EXISTS class String ALIAS ifNull(properties.class.:String, ''),
    ADD COLUMN IF NOT EXISTS raw_object String ALIAS ifNull(properties.raw_object.:String, ''),
    ADD COLUMN IF NOT EXISTS raw_sha256 String ALIAS ifNull(properties.raw_sha256.:String, ''),
    ADD COLUMN IF NOT EXISTS raw_bytes Int64 ALIAS ifNull(properties.raw_bytes.:Int64, length(raw));

-- `object` here is the object that could not be loaded; that of the errors
-- pipeline in which the failure came is no use to anybody.
CREATE VIEW IF NOT EXISTS load_failures AS
SELECT
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
FROM errors FINAL
WHERE properties.stage = 'loader';
