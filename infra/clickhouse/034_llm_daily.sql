-- Calls of language models for each day, model and provider.
CREATE TABLE IF NOT EXISTS llm_daily
(
    project          LowCardinality(String) COMMENT 'Project',
    day              Date COMMENT 'Day on which the calls began, UTC',
    provider         LowCardinality(String) COMMENT 'Provider, empty if unknown',
    model            LowCardinality(String) COMMENT 'Model, empty if unknown',
    calls            UInt64 COMMENT 'Calls',
    errors           UInt64 COMMENT 'Calls with status error',
    users            UInt64 COMMENT 'Different users',
    conversations    UInt64 COMMENT 'Different conversations',
    input_tokens     Int64 COMMENT 'Sum',
    cached_tokens    Int64 COMMENT 'Sum; part of input_tokens',
    output_tokens    Int64 COMMENT 'Sum',
    reasoning_tokens Int64 COMMENT 'Sum; part of output_tokens',
    total_tokens     Int64 COMMENT 'Sum',
    cost_usd         Float64 COMMENT 'Sum of the costs that are known',
    unpriced         UInt64 COMMENT 'Calls with tokens and without a cost',
    latency_p50      Nullable(Float64) COMMENT 'Median latency, ms',
    latency_p95      Nullable(Float64) COMMENT '95th percentile of latency, ms',
    latency_p99      Nullable(Float64) COMMENT '99th percentile of latency, ms',
    first_token_p50  Nullable(Float64) COMMENT 'Median time to the first token, ms',
    first_token_p95  Nullable(Float64) COMMENT '95th percentile of the time to the first token, ms'
)
ENGINE = MergeTree
PARTITION BY day
ORDER BY (project, provider, model)
COMMENT 'Rollup: calls of language models for each day, model and provider';
