-- One row for each session and day. A session that goes on after midnight has a row of each day, so that days can be
-- computed one by one; the view sessions adds them up.
CREATE TABLE IF NOT EXISTS daily_sessions
(
    project     LowCardinality(String) COMMENT 'Project',
    day         Date COMMENT 'Day of timestamp, UTC',
    session_id  String COMMENT 'Session; never empty',
    user_id     String COMMENT 'User of its last event that has one',
    started_at  DateTime64(3, 'UTC') COMMENT 'First event of the day',
    ended_at    DateTime64(3, 'UTC') COMMENT 'Last event of the day',
    events      UInt64 COMMENT 'Events of the day',
    first_event LowCardinality(String) COMMENT 'Name of its first event of the day',
    last_event  LowCardinality(String) COMMENT 'Name of its last event of the day'
)
ENGINE = MergeTree
PARTITION BY day
ORDER BY (project, session_id)
COMMENT 'Rollup: one row for each session and day. Ask the view sessions for whole sessions';
