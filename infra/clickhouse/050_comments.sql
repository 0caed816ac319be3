-- Comments of tables and views that had none. Clients and BI tools show them.
ALTER TABLE migrations MODIFY COMMENT 'Which DDL files penstock setup has applied';
ALTER TABLE migrations COMMENT COLUMN name 'File in infra/clickhouse', COMMENT COLUMN sha256 'Hash of the file as it was applied',
    COMMENT COLUMN applied_at 'When, UTC';

ALTER TABLE loads MODIFY COMMENT 'The load ledger: how far the loaders have come with each object. Read it with FINAL';
ALTER TABLE loads
    COMMENT COLUMN key 'Key of the object in the bucket', COMMENT COLUMN etag 'ETag of the object that is loaded',
    COMMENT COLUMN generation 'Version of the object''s rows; reingest --replace raises it',
    COMMENT COLUMN status 'loading, loaded, failed (is tried again), dead (given up) or dropped',
    COMMENT COLUMN pipeline 'events or errors', COMMENT COLUMN rows 'Rows of the object', COMMENT COLUMN bytes 'Size of the object',
    COMMENT COLUMN chunk_rows 'Most rows of one insert', COMMENT COLUMN chunk_bytes 'Most bytes of one insert',
    COMMENT COLUMN attempts 'Attempts so far', COMMENT COLUMN error 'Error of the previous attempt',
    COMMENT COLUMN loader 'Loader of the last attempt', COMMENT COLUMN received_at 'Receipt of the newest event in the object, UTC',
    COMMENT COLUMN started_at 'Start of the last attempt, UTC', COMMENT COLUMN finished_at 'Its end, UTC; 1970: not yet',
    COMMENT COLUMN version 'Orders the entries of an object: the highest counts',
    COMMENT COLUMN refused 'Numbers of the rows that the table refused; they are in errors',
    COMMENT COLUMN failures 'Attempts that failed through the object''s own fault', COMMENT COLUMN unfinished 'Attempts in a row that were killed',
    COMMENT COLUMN code 'Code of the last failure', COMMENT COLUMN job 'The re-ingest that replaced its rows last',
    COMMENT COLUMN reading 'How a file that Penstock did not write was read', COMMENT COLUMN first_fail 'When it failed first, UTC';

ALTER TABLE redriven MODIFY COMMENT 'Failure records that were sent again, so that each is sent once';
ALTER TABLE redriven
    COMMENT COLUMN event_id 'Of the row in errors', COMMENT COLUMN redriven_at 'When, UTC', COMMENT COLUMN accepted 'Events accepted',
    COMMENT COLUMN rejected 'Events rejected again', COMMENT COLUMN request_id 'Of the redrive', COMMENT COLUMN object 'Object of the failure record',
    COMMENT COLUMN code 'Code of the failure record';

ALTER TABLE jobs MODIFY COMMENT 'Re-ingests with --replace: what was replaced when, and where an interrupted one continues';
ALTER TABLE jobs
    COMMENT COLUMN selection 'The objects, as the command named them', COMMENT COLUMN id 'Of the job', COMMENT COLUMN started_at 'Start, UTC',
    COMMENT COLUMN updated_at 'Last progress, UTC', COMMENT COLUMN finished 'Whether it is done', COMMENT COLUMN objects 'Objects replaced',
    COMMENT COLUMN rows 'Rows loaded', COMMENT COLUMN failed 'Objects that could not be loaded';

ALTER TABLE llm_prices MODIFY COMMENT 'Prices of llm.prices in the configuration, in USD per million tokens. penstock setup writes them';
ALTER TABLE llm_prices
    COMMENT COLUMN model 'Pattern of the model''s name; * matches anything', COMMENT COLUMN provider 'Provider; empty: any',
    COMMENT COLUMN input 'Per million input tokens', COMMENT COLUMN cached_input 'Per million cached input tokens; NULL: as input',
    COMMENT COLUMN output 'Per million output tokens', COMMENT COLUMN position 'Place in the configuration';

ALTER TABLE load_failures MODIFY COMMENT 'Attempts at loads that failed, and why; object is the one that could not be loaded';
ALTER TABLE events_once MODIFY COMMENT 'Each event once, also if a client sent it again. For paths of properties, events FINAL is faster';
ALTER TABLE errors_once MODIFY COMMENT 'Rejected events and requests, each once, with the raw payload';
