-- Re-ingests with --replace. An interrupted one continues where it stopped, and the table shows who replaced
-- rows when.
CREATE TABLE IF NOT EXISTS jobs
(
    selection   String, -- the objects, as they were asked for
    id          String,
    started_at  DateTime64(3, 'UTC'),
    updated_at  DateTime64(3, 'UTC'),
    finished    Bool,
    objects     UInt64,
    rows        UInt64,
    failed      UInt64
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (selection, id);
