-- What the receivers and loaders rejected, by project, day and code.
CREATE OR REPLACE VIEW error_overview AS
SELECT
    project, toDate(timestamp) AS day, name AS code, properties.stage AS stage, count() AS failures,
    max(timestamp) AS last_at, anyLast(properties.message) AS example
FROM errors FINAL
GROUP BY project, day, code, stage
COMMENT 'Rejected events and requests, by project, day and error code, with an example. Details: errors_once';
ALTER TABLE error_overview
    COMMENT COLUMN project 'Project of the API key; empty: the request had none', COMMENT COLUMN day 'Day of the failures, UTC',
    COMMENT COLUMN code 'Error code', COMMENT COLUMN stage 'Where it failed: receiver or loader', COMMENT COLUMN failures 'Failures',
    COMMENT COLUMN last_at 'When it failed last, UTC', COMMENT COLUMN example 'One of the messages';
