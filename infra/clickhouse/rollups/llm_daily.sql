SELECT
    project, day, provider, model,
    count() AS calls, countIf(status = 'error') AS errors, uniqExactIf(user_id, user_id != '') AS users,
    uniqExactIf(conversation, conversation != '') AS conversations,
    sum(input) AS input_tokens, sum(cached) AS cached_tokens, sum(output) AS output_tokens,
    sum(reasoning) AS reasoning_tokens, sum(total) AS total_tokens,
    sum(ifNull(cost, 0)) AS cost_usd, countIf(cost IS NULL AND total > 0) AS unpriced,
    quantile(0.5)(ms) AS latency_p50, quantile(0.95)(ms) AS latency_p95, quantile(0.99)(ms) AS latency_p99,
    quantile(0.5)(first_ms) AS first_token_p50, quantile(0.95)(first_ms) AS first_token_p95
FROM
(
    SELECT
        project, toDate(time) AS day, provider, model, status, user_id, conversation, input_tokens AS input, cached_tokens AS cached,
        output_tokens AS output, reasoning_tokens AS reasoning, total_tokens AS total, cost_usd AS cost,
        latency_ms AS ms, first_token_ms AS first_ms
    FROM llm_calls
    WHERE time >= toDateTime64({from:Date}, 3, 'UTC') AND time < toDateTime64({to:Date} + 1, 3, 'UTC')
)
GROUP BY project, day, provider, model
