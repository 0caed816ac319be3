-- One row for each rejected event; see events_once.
CREATE OR REPLACE VIEW errors_once AS
SELECT * REPLACE (identity_time AS timestamp) FROM errors FINAL
WHERE identity_time < toDateTime64(0, 3, 'UTC') OR identity_time > toDateTime64(0, 3, 'UTC')
SETTINGS do_not_merge_across_partitions_select_final = 1,
    use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    ignore_data_skipping_indices = 'received_range,object_set',
    asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1
UNION ALL
SELECT * FROM errors FINAL
WHERE identity_time = toDateTime64(0, 3, 'UTC')
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 1,
    asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1
COMMENT 'Rejected events and requests, each once, with the raw payload';
