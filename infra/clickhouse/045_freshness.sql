-- How new the data of each project are. Projects that sent nothing for a week are not in it.
CREATE VIEW IF NOT EXISTS freshness AS
SELECT
    project, max(received_at) AS last_received_at, max(timestamp) AS last_event_at,
    dateDiff('second', last_received_at, now64(3)) AS seconds_ago,
    countIf(received_at >= now() - INTERVAL 1 HOUR) AS last_hour
FROM events
WHERE received_at >= now() - INTERVAL 7 DAY
GROUP BY project
SETTINGS final = 0
COMMENT 'When the last event of each project was received, and how many rows came in the last hour';
