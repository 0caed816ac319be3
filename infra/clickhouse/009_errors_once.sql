-- One row for each rejected event; see events_once.
CREATE VIEW IF NOT EXISTS errors_once AS
SELECT * FROM errors FINAL
SETTINGS do_not_merge_across_partitions_select_final = 0, asterisk_include_materialized_columns = 1,
    asterisk_include_alias_columns = 1;
