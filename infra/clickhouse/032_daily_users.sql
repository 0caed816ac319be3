-- One row for each user and day. `penstock rollups` computes whole days from rollups/daily_users.sql.
CREATE TABLE IF NOT EXISTS daily_users
(
    project     LowCardinality(String) COMMENT 'Project',
    day         Date COMMENT 'Day of timestamp, UTC',
    user_id     String COMMENT 'User; never empty',
    events      UInt64 COMMENT 'Events',
    sessions    UInt64 COMMENT 'Different sessions',
    purchases   UInt64 COMMENT 'Purchases; see the view purchases',
    revenue     Float64 COMMENT 'Sum of their amounts, in whatever currency they have',
    first_at    DateTime64(3, 'UTC') COMMENT 'First event of the day',
    last_at     DateTime64(3, 'UTC') COMMENT 'Last event of the day',
    country     LowCardinality(String) COMMENT 'properties.country of the last event that has one',
    platform    LowCardinality(String) COMMENT 'properties.platform of the last event that has one',
    app_version LowCardinality(String) COMMENT 'properties.app_version of the last event that has one'
)
ENGINE = MergeTree
PARTITION BY day
ORDER BY (project, user_id)
COMMENT 'Rollup: one row for each user and day. Ask it for daily, weekly and monthly users, retention and revenue';
