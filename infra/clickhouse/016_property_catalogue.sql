-- The property catalogue for people: one row for each project, event name, path and type. See property_counts.
CREATE OR REPLACE VIEW property_catalogue AS
SELECT
    project,
    name,
    path,
    type,
    sum(counts.events) AS events,
    events / sum(events) OVER (PARTITION BY project, name, path) AS share,
    CAST(min(counts.first_seen), 'DateTime(\'UTC\')') AS first_seen,
    CAST(max(counts.last_seen), 'DateTime(\'UTC\')') AS last_seen,
    anyLast(counts.example) AS example
FROM property_counts AS counts
WHERE path != ''
GROUP BY project, name, path, type
COMMENT 'Which properties events have: a row for each project, event name, path and type; share is of the path''s values';
ALTER TABLE property_catalogue
    COMMENT COLUMN project 'Project of the events',
    COMMENT COLUMN name 'Name of the events; * stands for further names if a project has too many',
    COMMENT COLUMN path 'Keys below properties, joined by dots', COMMENT COLUMN type 'Type of the values as they are stored',
    COMMENT COLUMN events 'Events with such a value; approximate', COMMENT COLUMN share 'Part of the path''s values, 0 to 1',
    COMMENT COLUMN first_seen 'When the first one was received, UTC', COMMENT COLUMN last_seen 'When the last one was received, UTC',
    COMMENT COLUMN example 'One of the values, its first 64 bytes; NULL: an array, an object, or clickhouse.catalogue_examples is false';
