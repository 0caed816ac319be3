-- What operators did: by the console, the operators' API or a command. A record is written when an action begins, and
-- again when it ends. The record that ended last counts.
CREATE TABLE IF NOT EXISTS audit
(
    id        UUID COMMENT 'Of the action',
    began_at  DateTime64(3, 'UTC') COMMENT 'When it began, UTC',
    ended_at  DateTime64(3, 'UTC') COMMENT 'When it ended, UTC; 1970: it has not, or its process was killed',
    who       String COMMENT 'Name of the token; of a command, the user of the operating system',
    role      LowCardinality(String) COMMENT 'operator or viewer',
    address   String COMMENT 'Address of the client; empty for a command that ran on this machine',
    via       LowCardinality(String) COMMENT 'console, api or command',
    process   String COMMENT 'Receiver, loader or machine that carried it out',
    operation LowCardinality(String) COMMENT 'Name of the command, as errors redrive',
    params    String COMMENT 'Its parameters, as JSON; of edited payloads only the ids',
    result    LowCardinality(String) COMMENT 'begun, done or failed',
    error     String COMMENT 'Why it failed',
    items     UInt64 COMMENT 'Lines of its answer, such as redriven failure records'
)
ENGINE = ReplacingMergeTree(ended_at)
ORDER BY (began_at, id)
COMMENT 'What operators did, when, and with what result. Read it with FINAL';
