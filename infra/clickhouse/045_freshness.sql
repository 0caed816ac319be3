-- How new the data of each project are. Projects that sent nothing for a week are not in it.
CREATE OR REPLACE VIEW freshness AS
SELECT
    project, max(received_at) AS last_received_at, max(timestamp) AS last_event_at,
    dateDiff('second', last_received_at, now64(3)) AS seconds_ago,
    countIf(received_at >= now() - INTERVAL 1 HOUR) AS last_hour
FROM events
WHERE received_at >= now() - INTERVAL 7 DAY
GROUP BY project
SETTINGS final = 0
COMMENT 'When the last event of each project was received, and how many rows came in the last hour';
ALTER TABLE freshness
    COMMENT COLUMN project 'Project', COMMENT COLUMN last_received_at 'When its last event was received, UTC',
    COMMENT COLUMN last_event_at 'Latest timestamp of its events of the last 7 days, by clients'' clocks, UTC',
    COMMENT COLUMN seconds_ago 'Seconds since the last event was received',
    COMMENT COLUMN last_hour 'Rows received within the last hour, copies included';
