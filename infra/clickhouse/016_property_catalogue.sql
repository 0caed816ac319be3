-- The property catalogue for people: one row for each project, event name, path and type. See property_counts.
CREATE VIEW IF NOT EXISTS property_catalogue AS
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
