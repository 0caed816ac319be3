-- One row an event, whenever ClickHouse merges and whatever the profile says.
--
-- Partitions are days of received_at, and merges never join partitions. So an
-- event that a client sends again on another day stays two rows in `events` for
-- ever; only FINAL at query time makes it one, and not with
-- do_not_merge_across_partitions_select_final = 1. The views read with FINAL and
-- set that setting themselves. They also have the MATERIALIZED and ALIAS columns:
-- `setup` creates the views again after it has added columns.
CREATE VIEW IF NOT EXISTS events_once AS
SELECT * FROM events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 0, asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1;

CREATE VIEW IF NOT EXISTS errors_once AS
SELECT * FROM errors FINAL
SETTINGS do_not_merge_across_partitions_select_final = 0, asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1;
