-- Failed loads. `object` is the object that could not be loaded, not the one that brought the failure.
CREATE OR REPLACE VIEW load_failures AS
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
WHERE properties.stage = 'loader'
COMMENT 'Attempts at loads that failed, and why; object is the one that could not be loaded';
ALTER TABLE load_failures
    COMMENT COLUMN time 'When it failed, UTC', COMMENT COLUMN object 'Object that could not be loaded',
    COMMENT COLUMN object_row 'Row in the object, from 0; NULL: the object as a whole', COMMENT COLUMN attempt 'Attempt',
    COMMENT COLUMN class 'permanent, outage or unknown', COMMENT COLUMN code 'Error code',
    COMMENT COLUMN server_code 'ClickHouse''s error code; 0: none', COMMENT COLUMN message 'What failed, in words',
    COMMENT COLUMN loader 'Loader of the attempt', COMMENT COLUMN event_id 'Id of the row in errors';
