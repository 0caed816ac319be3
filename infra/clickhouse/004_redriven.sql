-- Failures that were sent through the receiver again, so that each is sent once.
CREATE TABLE IF NOT EXISTS redriven
(
    event_id    UUID, -- of the row in `errors`
    redriven_at DateTime64(3, 'UTC'),
    accepted    UInt32,
    rejected    UInt32,
    request_id  String,
    object      String,
    code        String -- of the rejected request
)
ENGINE = ReplacingMergeTree(redriven_at)
ORDER BY event_id;
