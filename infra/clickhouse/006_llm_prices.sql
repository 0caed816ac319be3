-- The prices of the configuration's llm.prices, in USD per million tokens. `penstock setup` replaces all rows.
-- The view llm_calls reads them; setup generates it from internal/llm.
CREATE TABLE IF NOT EXISTS llm_prices
(
    model        String, -- `*` matches anything
    provider     LowCardinality(String), -- empty: any
    input        Float64,
    cached_input Nullable(Float64), -- NULL: as input
    output       Float64,
    position     UInt32 -- in the list
)
ENGINE = MergeTree
ORDER BY position;
