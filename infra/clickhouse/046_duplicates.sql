-- How many rows of events are copies that FINAL hides and merges will remove.
CREATE VIEW IF NOT EXISTS duplicates AS
SELECT
    project, toDate(timestamp) AS day, count() AS rows,
    rows - uniqExact(name, identity_time, event_id) AS duplicates
FROM events
GROUP BY project, day
SETTINGS final = 0
COMMENT 'Rows of events and copies among them, by project and day. Filter by day';
