-- Raw bytes beyond errors.blob_threshold are a blob of the errors pipeline, to
-- which properties.raw_blob refers; before they were an object of their own,
-- which properties.raw_object names. raw_range is NULL then, and else their first
-- and last byte in raw_object.
ALTER TABLE errors
    MODIFY COLUMN raw_object String ALIAS coalesce(properties.raw_object.:String, properties.raw_blob.`$blob`.object.:String, ''),
    MODIFY COLUMN raw_sha256 String ALIAS coalesce(properties.raw_sha256.:String, properties.raw_blob.`$blob`.sha256.:String, ''),
    ADD COLUMN IF NOT EXISTS raw_range Array(Nullable(Int64)) ALIAS properties.raw_blob.`$blob`.`range`.:`Array(Nullable(Int64))`;
