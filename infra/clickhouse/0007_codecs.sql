-- What a row takes on disk: 61 bytes of one of the generator's game events that
-- was 408, where it was 93; an LLM call of 5.5 KB takes 750, where it was 2,570.
-- Nothing is rewritten: new rows have these codecs at once, older ones when
-- their parts are merged, or by OPTIMIZE TABLE events FINAL.
--
-- properties  two thirds of all bytes. ZSTD(3) costs inserts and merges what
--             ZSTD(1) does, within the noise, and is smaller. Blocks of up to
--             4 MiB, so that a prompt that comes again is found; a block never
--             holds more than a granule, so no query reads more for it.
-- event_id    random ids stay 16 bytes; those that begin with a time (UUIDv7,
--             as the receiver makes them) lose it.
-- numbers     T64 drops the bits that no value of a block has. Smaller than
--             Delta whether the values come in order or, as by clients' times, not.
ALTER TABLE events
    MODIFY COLUMN properties CODEC(ZSTD(3)),
    MODIFY COLUMN context CODEC(ZSTD(1)),
    MODIFY COLUMN event_id CODEC(ZSTD(1)),
    MODIFY COLUMN received_at CODEC(T64, ZSTD(1)),
    MODIFY COLUMN seq CODEC(T64, ZSTD(1)),
    MODIFY COLUMN object_row CODEC(T64, ZSTD(1));
ALTER TABLE events MODIFY COLUMN properties MODIFY SETTING max_compress_block_size = 4194304;

ALTER TABLE errors
    MODIFY COLUMN properties CODEC(ZSTD(3)),
    MODIFY COLUMN context CODEC(ZSTD(1)),
    MODIFY COLUMN event_id CODEC(ZSTD(1)),
    MODIFY COLUMN received_at CODEC(T64, ZSTD(1)),
    MODIFY COLUMN seq CODEC(T64, ZSTD(1)),
    MODIFY COLUMN object_row CODEC(T64, ZSTD(1));
ALTER TABLE errors MODIFY COLUMN properties MODIFY SETTING max_compress_block_size = 4194304;
