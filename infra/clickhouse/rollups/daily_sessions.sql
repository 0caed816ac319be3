-- identity_time is timestamp, or 1970: it selects the partitions.
SELECT
    project, toDate(timestamp) AS day, session_id, argMaxIf(user_id, timestamp, user_id != '') AS user_id,
    min(timestamp) AS started_at, max(timestamp) AS ended_at, count() AS events,
    argMin(name, (timestamp, name)) AS first_event, argMax(name, (timestamp, name)) AS last_event
FROM events FINAL
WHERE timestamp >= toDateTime64({from:Date}, 3, 'UTC') AND timestamp < toDateTime64({to:Date} + 1, 3, 'UTC')
    AND (identity_time >= toDateTime64({from:Date}, 3, 'UTC') AND identity_time < toDateTime64({to:Date} + 1, 3, 'UTC')
        OR identity_time = toDateTime64(0, 3, 'UTC')) AND session_id != ''
GROUP BY project, day, session_id
