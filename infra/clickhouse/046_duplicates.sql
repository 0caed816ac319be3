-- How many rows of events are copies that FINAL hides and merges will remove.
CREATE OR REPLACE VIEW duplicates AS
SELECT
    project, toDate(timestamp) AS day, count() AS rows,
    rows - uniqExact(name, identity_time, event_id) AS duplicates
FROM events
GROUP BY project, day
SETTINGS final = 0
COMMENT 'Rows of events and copies among them, by project and day. Filter by day';
ALTER TABLE duplicates
    COMMENT COLUMN project 'Project', COMMENT COLUMN day 'Day of timestamp, UTC', COMMENT COLUMN rows 'Rows, copies included',
    COMMENT COLUMN duplicates 'Rows that are copies';
