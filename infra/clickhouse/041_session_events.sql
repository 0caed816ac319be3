-- The events of one session: SELECT * FROM session_events(project = 'game', session = 's1') ORDER BY timestamp.
CREATE OR REPLACE VIEW session_events AS
SELECT timestamp, name, user_id, properties, event_id, session_id, project
FROM events FINAL
PREWHERE project = {project:String} AND session_id = {session:String}
SETTINGS use_skip_indexes_if_final_exact_mode = 0, ignore_data_skipping_indices = 'received_range,object_set'
COMMENT 'The events of one session: session_events(project = ''game'', session = ''s1'')';
