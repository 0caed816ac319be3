-- llm_daily as a view, for roles that see some projects: see internal/clickhouse/analyst.go.
CREATE OR REPLACE VIEW llm_by_day AS
SELECT * FROM llm_daily
COMMENT 'The rollup llm_daily, for roles that see only some projects';
