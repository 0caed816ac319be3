-- daily_users as a view, for roles that see some projects: see internal/clickhouse/analyst.go.
CREATE OR REPLACE VIEW users_by_day AS
SELECT * FROM daily_users
COMMENT 'The rollup daily_users, for roles that see only some projects';
