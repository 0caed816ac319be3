-- Purchases of the names and properties that clients use for them. The amount is the first of these properties that
-- is a finite number, also as text: revenue, price, amount, value, total.
--
-- Like events_once it is two queries, so that a filter on timestamp reads only the weeks that it needs.
CREATE OR REPLACE VIEW purchases AS
SELECT
    project, identity_time AS timestamp, name, user_id, session_id, event_id,
    {{amount}} AS amount,
    coalesce({{text "properties.currency"}}, '') AS currency,
    coalesce({{text "properties.product_id"}}, {{text "properties.product"}}, {{text "properties.item"}},
        {{text "properties.sku"}}, '') AS product,
    coalesce({{text "properties.country"}}, '') AS country
FROM events FINAL
WHERE {{purchase}} AND (identity_time < toDateTime64(0, 3, 'UTC') OR identity_time > toDateTime64(0, 3, 'UTC'))
SETTINGS do_not_merge_across_partitions_select_final = 1,
    use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0,
    ignore_data_skipping_indices = 'received_range,object_set'
UNION ALL
SELECT
    project, timestamp, name, user_id, session_id, event_id,
    {{amount}} AS amount,
    coalesce({{text "properties.currency"}}, '') AS currency,
    coalesce({{text "properties.product_id"}}, {{text "properties.product"}}, {{text "properties.item"}},
        {{text "properties.sku"}}, '') AS product,
    coalesce({{text "properties.country"}}, '') AS country
FROM events FINAL
WHERE {{purchase}} AND identity_time = toDateTime64(0, 3, 'UTC')
SETTINGS do_not_merge_across_partitions_select_final = 1, use_skip_indexes_if_final_exact_mode = 1
COMMENT 'Purchases with amount, currency, product and country, whatever type a client sent the amount in';
ALTER TABLE purchases
    COMMENT COLUMN project 'Project', COMMENT COLUMN timestamp 'When it happened, by the client''s clock, UTC',
    COMMENT COLUMN name 'Name of the event', COMMENT COLUMN user_id 'User, empty if the client sent none',
    COMMENT COLUMN session_id 'Session, empty if the client sent none', COMMENT COLUMN event_id 'Id of the event',
    COMMENT COLUMN amount 'First of revenue, price, amount, value, total that is a finite number or such text; NULL: none',
    COMMENT COLUMN currency 'properties.currency, empty if the client sent none',
    COMMENT COLUMN product 'First of product_id, product, item and sku; empty: none',
    COMMENT COLUMN country 'properties.country, empty if the client sent none';
