-- Whole sessions, of daily_sessions.
CREATE VIEW IF NOT EXISTS sessions AS
SELECT
    project, session_id, min(started) AS started_at, max(ended) AS ended_at, toDate(started_at) AS day,
    dateDiff('second', started_at, ended_at) AS seconds, argMaxIf(user, ended, user != '') AS user_id,
    sum(n) AS events, argMin(entry, started) AS first_event, argMax(exit, ended) AS last_event
FROM
(
    SELECT project, session_id, started_at AS started, ended_at AS ended, user_id AS user, events AS n,
        first_event AS entry, last_event AS exit
    FROM daily_sessions
)
GROUP BY project, session_id
COMMENT 'One row for each session: begin, end, length, user, events. It is as new as the rollup daily_sessions';
