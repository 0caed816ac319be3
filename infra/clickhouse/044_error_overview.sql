-- What the receivers and loaders rejected, by project, day and code.
CREATE VIEW IF NOT EXISTS error_overview AS
SELECT
    project, toDate(timestamp) AS day, name AS code, properties.stage AS stage, count() AS failures,
    max(timestamp) AS last_at, anyLast(properties.message) AS example
FROM errors FINAL
GROUP BY project, day, code, stage
COMMENT 'Rejected events and requests, by project, day and error code, with an example. Details: errors_once';
