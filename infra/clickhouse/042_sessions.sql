-- Whole sessions, of daily_sessions.
CREATE OR REPLACE VIEW sessions AS
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
ALTER TABLE sessions
    COMMENT COLUMN project 'Project', COMMENT COLUMN session_id 'Session; never empty', COMMENT COLUMN started_at 'First event, UTC',
    COMMENT COLUMN ended_at 'Last event, UTC', COMMENT COLUMN day 'Day of the first event, UTC',
    COMMENT COLUMN seconds 'From the first event to the last', COMMENT COLUMN user_id 'User of its last day that has one; empty: none',
    COMMENT COLUMN events 'Events', COMMENT COLUMN first_event 'Name of its first event', COMMENT COLUMN last_event 'Name of its last event';
