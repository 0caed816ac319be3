-- The events of one user: SELECT * FROM user_timeline(project = 'game', user = 'u1') ORDER BY timestamp.
-- PREWHERE lets the index of user_id skip before FINAL. All copies of an event have the same user.
CREATE OR REPLACE VIEW user_timeline AS
SELECT timestamp, name, session_id, properties, event_id, user_id, project
FROM events FINAL
PREWHERE project = {project:String} AND user_id = {user:String}
SETTINGS use_skip_indexes_if_final_exact_mode = 0, ignore_data_skipping_indices = 'received_range,object_set'
COMMENT 'The events of one user: user_timeline(project = ''game'', user = ''u1'')';
