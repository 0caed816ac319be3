-- One row for each event, whatever ClickHouse has merged and whatever the user's profile says.
--
-- `timestamp` is identity_time in all rows but those of 1970, so a filter on it reads only the weeks and granules
-- that it needs. Rows of 1970 have no time of their own: the second query returns them, and reads all of them.
--
-- A filter gives the same rows as a filter on a table without duplicates:
--
-- project, name, timestamp, event_id  always. They are in the key, so all copies of an event have the same.
-- properties, context, typed columns  always, because no index is on them.
-- received_at, receiver, seq, object  always, but reads the whole table: of an event's copies only the one that
--                                     FINAL keeps counts, so their indexes are ignored. Add a filter on timestamp,
--                                     or ask `events`.
-- user_id, session_id                 if all copies of an event have the same, as a resend has. If a client sends
--                                     an event again with another user, a filter may find it under either.
--
-- It also has the MATERIALIZED and ALIAS columns, except those that only llm_calls reads. `setup` creates the view
-- again after it has added columns, and gives its columns the comments of the table's.
CREATE OR REPLACE VIEW events_once AS
SELECT * EXCEPT (is_llm, llm_trace, llm_conversation, llm) REPLACE (identity_time AS timestamp) FROM events FINAL
WHERE identity_time < toDateTime64(0, 3, 'UTC') OR identity_time > toDateTime64(0, 3, 'UTC')
SETTINGS do_not_merge_across_partitions_select_final = 1,
    use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    ignore_data_skipping_indices = 'received_range,object_set',
    asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1
UNION ALL
SELECT * EXCEPT (is_llm, llm_trace, llm_conversation, llm) FROM events FINAL
WHERE identity_time = toDateTime64(0, 3, 'UTC')
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 1,
    asterisk_include_materialized_columns = 1, asterisk_include_alias_columns = 1
COMMENT 'Each event once, also if a client sent it again. For paths of properties, events FINAL is faster';
