-- identity_time is timestamp, or 1970: it selects the partitions.
SELECT
    project, {day:Date} AS day, user_id,
    count() AS events, uniqExactIf(session_id, session_id != '') AS sessions,
    countIf(amount IS NOT NULL) AS purchases, sum(ifNull(amount, 0)) AS revenue,
    min(at) AS first_at, max(at) AS last_at,
    ifNull(argMax(country, at), '') AS country, ifNull(argMax(platform, at), '') AS platform,
    ifNull(argMax(app_version, at), '') AS app_version
FROM
(
    SELECT
        project, user_id, session_id, timestamp AS at,
        nullIf(accurateCastOrNull(properties.country, 'String'), '') AS country,
        nullIf(accurateCastOrNull(properties.platform, 'String'), '') AS platform,
        nullIf(accurateCastOrNull(properties.app_version, 'String'), '') AS app_version,
        if(name IN ('purchase', 'Order Completed', 'order_completed', 'in_app_purchase'), ifNull(coalesce(
            if(isFinite(accurateCastOrNull(properties.revenue, 'Float64')),
                accurateCastOrNull(properties.revenue, 'Float64'), NULL),
            if(isFinite(accurateCastOrNull(properties.price, 'Float64')),
                accurateCastOrNull(properties.price, 'Float64'), NULL),
            if(isFinite(accurateCastOrNull(properties.amount, 'Float64')),
                accurateCastOrNull(properties.amount, 'Float64'), NULL),
            if(isFinite(accurateCastOrNull(properties.value, 'Float64')),
                accurateCastOrNull(properties.value, 'Float64'), NULL),
            if(isFinite(accurateCastOrNull(properties.total, 'Float64')),
                accurateCastOrNull(properties.total, 'Float64'), NULL)), 0), NULL) AS amount
    FROM events FINAL
    WHERE timestamp >= toDateTime64({day:Date}, 3, 'UTC') AND timestamp < toDateTime64({day:Date} + 1, 3, 'UTC')
        AND (identity_time >= toDateTime64({day:Date}, 3, 'UTC') AND identity_time < toDateTime64({day:Date} + 1, 3, 'UTC')
            OR identity_time = toDateTime64(0, 3, 'UTC')) AND user_id != ''
)
GROUP BY project, user_id
