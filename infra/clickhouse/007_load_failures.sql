-- Failed loads. `object` is the object that could not be loaded, not the one that brought the failure.
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
