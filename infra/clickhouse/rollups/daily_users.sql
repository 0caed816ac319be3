-- identity_time is timestamp, or 1970: it selects the partitions.
SELECT
    project, day, user_id,
    count() AS events, uniqExactIf(session_id, session_id != '') AS sessions,
    countIf(amount IS NOT NULL) AS purchases, sum(ifNull(amount, 0)) AS revenue,
    min(at) AS first_at, max(at) AS last_at,
    ifNull(argMax(country, at), '') AS country, ifNull(argMax(platform, at), '') AS platform,
    ifNull(argMax(app_version, at), '') AS app_version
FROM
(
    SELECT
        project, toDate(timestamp) AS day, user_id, session_id, timestamp AS at,
        nullIf({{text "properties.country"}}, '') AS country,
        nullIf({{text "properties.platform"}}, '') AS platform,
        nullIf({{text "properties.app_version"}}, '') AS app_version,
        if({{purchase}}, ifNull({{amount}}, 0), NULL) AS amount
    FROM events FINAL
    WHERE timestamp >= toDateTime64({from:Date}, 3, 'UTC') AND timestamp < toDateTime64({to:Date} + 1, 3, 'UTC')
        AND (identity_time >= toDateTime64({from:Date}, 3, 'UTC') AND identity_time < toDateTime64({to:Date} + 1, 3, 'UTC')
            OR identity_time = toDateTime64(0, 3, 'UTC')) AND user_id != ''
)
GROUP BY project, day, user_id
