-- One row for each event, whatever ClickHouse has merged and whatever the user's profile says.
--
-- Partitions are days of received_at, and merges never cross partitions. So an event that a client resends on
-- another day stays two rows in `events` for good. FINAL makes it one row, but not with
-- do_not_merge_across_partitions_select_final = 1; so the view sets that. It also has the MATERIALIZED and ALIAS
-- columns: `setup` creates the view again after it has added columns.
CREATE VIEW IF NOT EXISTS events_once AS
SELECT * FROM events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 0, asterisk_include_materialized_columns = 1,
    asterisk_include_alias_columns = 1;
