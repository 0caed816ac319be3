-- Purchases of the names and properties that clients use for them. The amount is the first of these properties that
-- is a finite number, also as text: revenue, price, amount, value, total.
CREATE VIEW IF NOT EXISTS purchases AS
SELECT
    project, timestamp, name, user_id, session_id, event_id,
    coalesce(
        if(isFinite(accurateCastOrNull(properties.revenue, 'Float64')),
            accurateCastOrNull(properties.revenue, 'Float64'), NULL),
        if(isFinite(accurateCastOrNull(properties.price, 'Float64')),
            accurateCastOrNull(properties.price, 'Float64'), NULL),
        if(isFinite(accurateCastOrNull(properties.amount, 'Float64')),
            accurateCastOrNull(properties.amount, 'Float64'), NULL),
        if(isFinite(accurateCastOrNull(properties.value, 'Float64')),
            accurateCastOrNull(properties.value, 'Float64'), NULL),
        if(isFinite(accurateCastOrNull(properties.total, 'Float64')),
            accurateCastOrNull(properties.total, 'Float64'), NULL)) AS amount,
    coalesce(accurateCastOrNull(properties.currency, 'String'), '') AS currency,
    coalesce(accurateCastOrNull(properties.product_id, 'String'), accurateCastOrNull(properties.item, 'String'),
        accurateCastOrNull(properties.sku, 'String'), '') AS product,
    coalesce(accurateCastOrNull(properties.country, 'String'), '') AS country
FROM events FINAL
WHERE name IN ('purchase', 'Order Completed', 'order_completed', 'in_app_purchase')
COMMENT 'Purchases with amount, currency, product and country, whatever type a client sent the amount in';
