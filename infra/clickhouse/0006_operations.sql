-- What operators need: generations, so that an object's rows can be replaced
-- while others read them, and in the ledger what failed and was given up.
ALTER TABLE events ADD COLUMN IF NOT EXISTS generation UInt32;
ALTER TABLE errors ADD COLUMN IF NOT EXISTS generation UInt32;

ALTER TABLE loads MODIFY COLUMN status Enum8('loading' = 1, 'loaded' = 2, 'failed' = 3, 'dead' = 4, 'dropped' = 5);
ALTER TABLE loads
    ADD COLUMN IF NOT EXISTS refused Array(UInt32), -- rows that the table refused; they are in errors
    ADD COLUMN IF NOT EXISTS failures UInt32,       -- attempts that failed through the object's own fault, since it was last redriven
    ADD COLUMN IF NOT EXISTS code LowCardinality(String),
    ADD COLUMN IF NOT EXISTS job String,            -- the re-ingest that replaced it last
    ADD COLUMN IF NOT EXISTS first_fail DateTime64(3, 'UTC');

-- Failures that were sent through the receiver again, so that it is done once.
CREATE TABLE IF NOT EXISTS redriven
(
    event_id    UUID, -- of the row in errors
    redriven_at DateTime64(3, 'UTC'),
    accepted    UInt32,
    rejected    UInt32,
    request_id  String,
    object      String,
    code        String
)
ENGINE = ReplacingMergeTree(redriven_at)
ORDER BY event_id;

-- What operators have begun, so that a re-ingest that was interrupted goes on
-- where it stopped, and all know who replaced rows when.
CREATE TABLE IF NOT EXISTS jobs
(
    selection   String, -- what it is about, as it was asked for
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
