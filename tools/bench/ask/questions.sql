-- An analyst's questions. A question begins with its name, then come options and statements:
--
-- before  as the docs of the schema before wrote it
-- after   as the docs write it
-- truth   the same question to the tables of truth.go
-- all     these three, where only the table differs: {T} is events FINAL, events_once or truth.events
-- check   what is compared, of a question that is {ask}
-- most    milliseconds that the answer may take; 500 without it
-- scale   is asked of ten times the events, too
-- approximate  the share by which the answer may differ: the function estimates
--
-- {user}, {session} and the like are subjects.go. now() and today() become the end of the run's events, so that an
-- answer does not change before it is compared.

-- question daily users, 30 days
-- scale
-- all
SELECT toDate(timestamp) AS day, uniqExact(user_id) AS users
FROM {T} WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY day ORDER BY day DESC
-- after
SELECT day, count() AS users
FROM daily_users WHERE project = 'game' AND day >= today() - 29 GROUP BY day ORDER BY day DESC

-- question daily users by session_start
-- all
SELECT toDate(timestamp) AS day, uniqExact(user_id) AS users
FROM {T} WHERE project = 'game' AND name = 'session_start' AND timestamp >= today() - 29 GROUP BY day ORDER BY day DESC

-- question weekly and monthly users, rolling
-- all
SELECT day, uniqMerge(s) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) AS wau,
    uniqMerge(s) OVER (ORDER BY day ROWS BETWEEN 29 PRECEDING AND CURRENT ROW) AS mau
FROM
(
    SELECT toDate(timestamp) AS day, uniqState(user_id) AS s
    FROM {T} WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY day
)
ORDER BY day DESC
-- after
SELECT day, uniqMerge(s) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) AS wau,
    uniqMerge(s) OVER (ORDER BY day ROWS BETWEEN 29 PRECEDING AND CURRENT ROW) AS mau
FROM
(
    SELECT day, uniqState(user_id) AS s FROM daily_users WHERE project = 'game' AND day >= today() - 29 GROUP BY day
)
ORDER BY day DESC

-- question retention after 1, 7 and 28 days
-- all
WITH u AS
(
    SELECT user_id, groupUniqArray(toDate(timestamp)) AS days, arrayMin(days) AS cohort
    FROM {T} WHERE project = 'game' AND name = 'session_start' GROUP BY user_id
)
SELECT cohort, count() AS n, countIf(has(days, cohort + 1)) / n AS d1, countIf(has(days, cohort + 7)) / n AS d7,
    countIf(has(days, cohort + 28)) / n AS d28
FROM u GROUP BY cohort ORDER BY cohort DESC

-- question funnel in an hour, 7 days
-- all
SELECT countIf(l >= 1) AS s1, countIf(l >= 2) AS s2, countIf(l >= 3) AS s3
FROM
(
    SELECT user_id, windowFunnel(3600)(toDateTime(timestamp), name = 'level_start', name = 'level_complete',
        name = 'purchase') AS l
    FROM {T}
    WHERE project = 'game' AND name IN ('level_start', 'level_complete', 'purchase') AND timestamp >= today() - 6
    GROUP BY user_id
)

-- question revenue by country and version
-- before
SELECT properties.country.:String AS c, properties.app_version.:String AS v,
    sum(accurateCastOrNull(properties.price, 'Float64')) AS usd, count()
FROM events FINAL WHERE project = 'game' AND name = 'purchase' GROUP BY c, v ORDER BY usd DESC LIMIT 10
-- after
SELECT text(properties.country) AS c, text(properties.app_version) AS v, sum(num(properties.price)) AS usd, count()
FROM events FINAL WHERE project = 'game' AND name = 'purchase' GROUP BY c, v ORDER BY usd DESC LIMIT 10
-- truth
SELECT country AS c, app_version AS v, sum(price) AS usd, count()
FROM truth.events WHERE project = 'game' AND name = 'purchase' GROUP BY c, v ORDER BY usd DESC LIMIT 10

-- question users by country, 30 days
-- before
SELECT properties.country.:String AS c, count() AS n, uniq(user_id)
FROM events FINAL WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY c ORDER BY n DESC, c LIMIT 10
-- after
SELECT text(properties.country) AS c, count() AS n, uniq(user_id)
FROM events FINAL WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY c ORDER BY n DESC, c LIMIT 10
-- truth
SELECT country AS c, count() AS n, uniq(user_id)
FROM truth.events WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY c ORDER BY n DESC, c LIMIT 10

-- question timeline of a user, three columns
-- most 100
-- scale
-- all
SELECT timestamp, name, session_id
FROM {T} WHERE project = 'game' AND user_id = '{user}' AND timestamp >= today() - 29 ORDER BY timestamp
-- after
SELECT timestamp, name, session_id
FROM user_timeline(project = 'game', user = '{user}') WHERE timestamp >= today() - 29 ORDER BY timestamp

-- question timeline of a user, all
-- most 100
-- scale
-- before
SELECT * FROM events FINAL
WHERE project = 'game' AND user_id = '{user}' AND timestamp >= today() - 29 ORDER BY timestamp
-- after
SELECT * FROM user_timeline(project = 'game', user = '{user}') WHERE timestamp >= today() - 29 ORDER BY timestamp
-- truth
SELECT timestamp, name, session_id, properties FROM truth.events
WHERE project = 'game' AND user_id = '{user}' AND timestamp >= today() - 29 ORDER BY timestamp
-- check
SELECT timestamp, name, session_id, properties FROM ({ask}) ORDER BY timestamp

-- question timeline of a usual user, all
-- most 100
-- before
SELECT * FROM events FINAL
WHERE project = 'game' AND user_id = '{usual}' AND timestamp >= today() - 29 ORDER BY timestamp
-- after
SELECT * FROM user_timeline(project = 'game', user = '{usual}') WHERE timestamp >= today() - 29 ORDER BY timestamp
-- truth
SELECT timestamp, name, session_id, properties FROM truth.events
WHERE project = 'game' AND user_id = '{usual}' AND timestamp >= today() - 29 ORDER BY timestamp
-- check
SELECT timestamp, name, session_id, properties FROM ({ask}) ORDER BY timestamp

-- question one session with properties
-- most 100
-- scale
-- all
SELECT timestamp, name, properties
FROM {T} WHERE project = 'game' AND session_id = '{session}' ORDER BY timestamp
-- after
SELECT timestamp, name, properties
FROM session_events(project = 'game', session = '{session}') ORDER BY timestamp

-- question rare property
-- before
SELECT count() FROM events FINAL WHERE project = 'game' AND properties.exp.k7.:Int64 = 1
-- after
SELECT count() FROM events FINAL WHERE project = 'game' AND num(properties.exp.k7) = 1
-- truth
SELECT count() FROM truth.events WHERE project = 'game' AND rare = 1

-- question property keys of a name
-- before
SELECT arrayJoin(JSONAllPaths(properties)) AS path, count() AS n
FROM events FINAL WHERE project = 'game' AND name = 'purchase' GROUP BY path ORDER BY n DESC
-- after
SELECT path, sum(events) AS n
FROM property_catalogue WHERE project = 'game' AND name = 'purchase' GROUP BY path ORDER BY n DESC
-- check
SELECT path FROM ({ask}) ORDER BY path
-- truth
SELECT DISTINCT arrayJoin(paths) AS path FROM truth.events WHERE project = 'game' AND name = 'purchase' ORDER BY path

-- question property keys of all names
-- before
SELECT name, arrayJoin(JSONAllPaths(properties)) AS path, count() AS n
FROM events FINAL GROUP BY name, path ORDER BY n DESC
-- after
SELECT name, path, sum(events) AS n FROM property_catalogue GROUP BY name, path ORDER BY n DESC
-- check
SELECT name, path FROM ({ask}) ORDER BY name, path
-- truth
SELECT DISTINCT name, arrayJoin(paths) AS path FROM truth.events ORDER BY name, path

-- question top error messages, 7 days
-- before
SELECT properties.message.:String AS m, count() AS n, uniq(user_id)
FROM events FINAL WHERE project = 'game' AND name = 'error' AND timestamp >= today() - 6
GROUP BY m ORDER BY n DESC LIMIT 20
-- after
SELECT text(properties.message) AS m, count() AS n, uniq(user_id)
FROM events FINAL WHERE project = 'game' AND name = 'error' AND timestamp >= today() - 6
GROUP BY m ORDER BY n DESC LIMIT 20
-- truth
SELECT message AS m, count() AS n, uniq(user_id)
FROM truth.events WHERE project = 'game' AND name = 'error' AND timestamp >= today() - 6
GROUP BY m ORDER BY n DESC LIMIT 20

-- question average score by level, 7 days
-- before
SELECT properties.level.:Int64 AS l, avg(properties.score.:Int64), count()
FROM events FINAL WHERE project = 'game' AND name = 'level_complete' AND timestamp >= today() - 6
GROUP BY l ORDER BY l LIMIT 10
-- after
SELECT num(properties.level) AS l, avg(num(properties.score)), count()
FROM events FINAL WHERE project = 'game' AND name = 'level_complete' AND timestamp >= today() - 6
GROUP BY l ORDER BY l LIMIT 10
-- truth
SELECT level AS l, avg(score), count()
FROM truth.events WHERE project = 'game' AND name = 'level_complete' AND timestamp >= today() - 6
GROUP BY l ORDER BY l LIMIT 10

-- question events by name and hour, 24 hours
-- scale
-- all
SELECT toStartOfHour(timestamp) AS hour, name, count()
FROM {T} WHERE timestamp >= now() - INTERVAL 1 DAY GROUP BY hour, name ORDER BY hour DESC, name

-- question received in the last 5 minutes
-- before
SELECT count() FROM events FINAL WHERE received_at > now() - 300
-- after
SELECT count() FROM events_once WHERE received_at > now() - 300
-- truth
SELECT count() FROM truth.events WHERE live

-- question happened in the last 5 minutes
-- all
SELECT count() FROM {T} WHERE timestamp > now() - 300

-- question freshness by project
-- before
SELECT project, max(received_at) AS last FROM events FINAL GROUP BY project ORDER BY project
-- after
SELECT project, last_received_at AS last FROM freshness ORDER BY project
-- truth
SELECT project, max(live) FROM truth.events GROUP BY project ORDER BY project
-- check
SELECT project, last > now() - 300 FROM ({ask}) ORDER BY project

-- question rows of one object
-- before
SELECT count() FROM events FINAL WHERE object = '{object}'
-- after
SELECT count() FROM events WHERE object = '{object}'
-- truth
SELECT count() FROM truth.events WHERE live

-- question duplicates, 7 days
-- all
SELECT count() - uniqExact(event_id) FROM {T} WHERE project = 'game' AND timestamp >= today() - 6

-- question one percent of the users
-- all
SELECT name, count() * 100 FROM {T} WHERE project = 'game' AND cityHash64(user_id) % 100 = 0 GROUP BY name ORDER BY name

-- question all events
-- all
SELECT count() FROM {T}

-- question one event_id
-- most 100
-- all
SELECT name, timestamp FROM {T} WHERE event_id = '{event}'

-- question session length, 7 days
-- before
SELECT quantiles(0.5, 0.9)(l)
FROM
(
    SELECT session_id, dateDiff('second', min(timestamp), max(timestamp)) AS l
    FROM events FINAL WHERE project = 'game' AND timestamp >= today() - 6 GROUP BY session_id
)
-- after
SELECT quantiles(0.5, 0.9)(l)
FROM
(
    SELECT session_id, dateDiff('second', min(timestamp), max(timestamp)) AS l
    FROM events_once WHERE project = 'game' AND timestamp >= today() - 6 GROUP BY session_id
)
-- truth
SELECT quantiles(0.5, 0.9)(l)
FROM
(
    SELECT session_id, dateDiff('second', min(timestamp), max(timestamp)) AS l
    FROM truth.events WHERE project = 'game' AND timestamp >= today() - 6 GROUP BY session_id
)

-- question revenue by day
-- before
SELECT toDate(timestamp) AS day, sum(properties.price.:Float64), uniqExact(user_id)
FROM events FINAL WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY day ORDER BY day DESC
-- after
SELECT day, sum(revenue), count()
FROM daily_users WHERE project = 'game' AND day >= today() - 29 GROUP BY day ORDER BY day DESC
-- truth
SELECT toDate(timestamp) AS day, sum(price), uniqExact(user_id)
FROM truth.events WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY day ORDER BY day DESC

-- question revenue by day, from the events
-- before
SELECT toDate(timestamp) AS day, sum(accurateCastOrNull(properties.price, 'Float64')), uniq(user_id)
FROM events FINAL WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY day ORDER BY day DESC
-- after
SELECT toDate(timestamp) AS day, sum(num(properties.price)), uniq(user_id)
FROM events FINAL WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY day ORDER BY day DESC
-- truth
SELECT toDate(timestamp) AS day, sum(price), uniq(user_id)
FROM truth.events WHERE project = 'game' AND timestamp >= today() - 29 GROUP BY day ORDER BY day DESC

-- question LLM: cost by model and day, 30 days
-- most 150
-- scale
-- before
SELECT toDate(time) AS day, model, count(), sum(input_tokens), sum(output_tokens), sum(cost_usd)
FROM llm_calls WHERE project = 'chat' AND time > now() - INTERVAL 30 DAY GROUP BY day, model ORDER BY day DESC, model
-- truth
SELECT toDate(time) AS day, model, count(), sum(input_tokens), sum(output_tokens), sum(cost_usd)
FROM truth.calls WHERE project = 'chat' AND time > now() - INTERVAL 30 DAY GROUP BY day, model ORDER BY day DESC, model

-- question LLM: the same for whole days
-- most 150
-- before
SELECT toDate(time) AS day, model, count(), sum(input_tokens), sum(output_tokens), sum(ifNull(cost_usd, 0))
FROM llm_calls WHERE project = 'chat' AND time >= today() - 29 GROUP BY day, model ORDER BY day DESC, model
-- after
SELECT day, model, sum(calls), sum(input_tokens), sum(output_tokens), sum(cost_usd)
FROM llm_daily WHERE project = 'chat' AND day >= today() - 29 GROUP BY day, model ORDER BY day DESC, model
-- truth
SELECT toDate(time) AS day, model, count(), sum(input_tokens), sum(output_tokens), sum(ifNull(cost_usd, 0))
FROM truth.calls WHERE project = 'chat' AND time >= today() - 29 GROUP BY day, model ORDER BY day DESC, model

-- question LLM: the same without a project
-- most 150
-- before
SELECT toDate(time) AS day, model, count(), sum(input_tokens), sum(output_tokens), sum(cost_usd)
FROM llm_calls WHERE time > now() - INTERVAL 30 DAY GROUP BY day, model ORDER BY day DESC, model
-- truth
SELECT toDate(time) AS day, model, count(), sum(input_tokens), sum(output_tokens), sum(cost_usd)
FROM truth.calls WHERE time > now() - INTERVAL 30 DAY GROUP BY day, model ORDER BY day DESC, model

-- question LLM: cost by model, 1 day
-- most 150
-- before
SELECT model, count() AS calls, sum(cost_usd) FROM llm_calls WHERE time > now() - INTERVAL 1 DAY
GROUP BY model ORDER BY calls DESC
-- truth
SELECT model, count() AS calls, sum(cost_usd) FROM truth.calls WHERE time > now() - INTERVAL 1 DAY
GROUP BY model ORDER BY calls DESC

-- question LLM: latency by model, 7 days
-- most 150
-- before
SELECT model, quantiles(0.5, 0.95, 0.99)(latency_ms)
FROM llm_calls WHERE project = 'chat' AND time > now() - INTERVAL 7 DAY GROUP BY model ORDER BY model
-- truth
SELECT model, quantiles(0.5, 0.95, 0.99)(latency_ms)
FROM truth.calls WHERE project = 'chat' AND time > now() - INTERVAL 7 DAY GROUP BY model ORDER BY model

-- question LLM: tokens by user, 30 days
-- most 150
-- before
SELECT user_id, sum(total_tokens) AS t
FROM llm_calls WHERE project = 'chat' AND time > now() - INTERVAL 30 DAY
GROUP BY user_id ORDER BY t DESC, user_id LIMIT 20
-- truth
SELECT user_id, sum(input_tokens + output_tokens) AS t
FROM truth.calls WHERE project = 'chat' AND time > now() - INTERVAL 30 DAY
GROUP BY user_id ORDER BY t DESC, user_id LIMIT 20

-- question LLM: errors, 7 days
-- most 150
-- before
SELECT model, error, count() AS n
FROM llm_calls WHERE project = 'chat' AND time > now() - INTERVAL 7 DAY AND status = 'error'
GROUP BY model, error ORDER BY n DESC
-- truth
SELECT model, error, count() AS n
FROM truth.calls WHERE project = 'chat' AND time > now() - INTERVAL 7 DAY AND status = 'error'
GROUP BY model, error ORDER BY n DESC

-- question LLM: words in the prompt, 30 days
-- before
SELECT time, model, input
FROM llm_calls WHERE project = 'chat' AND time > now() - INTERVAL 30 DAY AND input ILIKE '%refund password%'
ORDER BY time DESC LIMIT 20
-- truth
SELECT time, model, input
FROM truth.calls WHERE project = 'chat' AND time > now() - INTERVAL 30 DAY AND input ILIKE '%refund password%'
ORDER BY time DESC LIMIT 20

-- question LLM: one conversation
-- most 150
-- before
SELECT time, model, status, cost_usd FROM llm_calls WHERE conversation = '{conversation}' ORDER BY time
-- truth
SELECT time, model, status, cost_usd FROM truth.calls WHERE conversation = '{conversation}' ORDER BY time

-- question LLM: one conversation that is a session
-- most 150
-- before
SELECT time, model, status, cost_usd FROM llm_calls WHERE conversation = '{talk}' ORDER BY time
-- truth
SELECT time, model, status, cost_usd FROM truth.calls WHERE conversation = '{talk}' ORDER BY time

-- question LLM: one user
-- most 150
-- before
SELECT time, model, status, cost_usd FROM llm_calls WHERE project = 'chat' AND user_id = '{caller}' ORDER BY time
-- truth
SELECT time, model, status, cost_usd FROM truth.calls WHERE project = 'chat' AND user_id = '{caller}' ORDER BY time

-- question LLM: tokens by model, from the events
-- most 150
-- before
SELECT toDate(timestamp) AS day, properties.model.:String AS m, count(), sum(properties.input_tokens.:Int64)
FROM events FINAL WHERE project = 'chat' AND name = 'llm_call' AND timestamp > now() - INTERVAL 30 DAY
GROUP BY day, m ORDER BY day DESC, m
-- after
SELECT toDate(timestamp) AS day, text(properties.model) AS m, count(), sum(num(properties.input_tokens))
FROM events FINAL WHERE project = 'chat' AND name = 'llm_call' AND timestamp > now() - INTERVAL 30 DAY
GROUP BY day, m ORDER BY day DESC, m
-- truth
SELECT toDate(time) AS day, model AS m, count(), sum(input_tokens)
FROM truth.calls WHERE project = 'chat' AND time > now() - INTERVAL 30 DAY
GROUP BY day, m ORDER BY day DESC, m

-- question LLM: words in the prompt, from the events
-- before
SELECT timestamp FROM events FINAL
WHERE project = 'chat' AND name = 'llm_call' AND properties.input.:String ILIKE '%refund password%'
ORDER BY timestamp DESC LIMIT 20
-- after
SELECT timestamp FROM events FINAL
WHERE project = 'chat' AND name = 'llm_call' AND text(properties.input) ILIKE '%refund password%'
ORDER BY timestamp DESC LIMIT 20
-- truth
SELECT time FROM truth.calls WHERE project = 'chat' AND input ILIKE '%refund password%' ORDER BY time DESC LIMIT 20
