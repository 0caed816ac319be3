-- Which of these files have been applied. `penstock setup` applies them in the
-- order of their names, each statement once; every statement can be run again.
CREATE TABLE IF NOT EXISTS migrations
(
    name       String,
    sha256     FixedString(64),
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY name;
