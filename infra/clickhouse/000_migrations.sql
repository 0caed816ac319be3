-- Which of these files have been applied. `penstock setup` runs this file every time, and the others in the
-- order of their names, each once. A file that was released never changes: a change is a new file, and each of
-- its statements can be repeated.
CREATE TABLE IF NOT EXISTS migrations
(
    name       String,
    sha256     FixedString(64),
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY name;
