-- llm_calls anew: one absurd event spoiled sums. Of the names that a number may
-- have, the first holds that has one which can be: a count of tokens is whole and
-- from 0 to 1e9, cost and latency are from 0 to 1e12. What else stands there is as
-- good as not told. Numbers are read from their text, so that true is none.
--
-- One row a call. The first half is native events and OpenTelemetry's spans, a
-- row each; the second is Langfuse's, where a call is what its events with one
-- id say together, the newest first, and its trace knows the conversation.
--
-- A price is found by one pass over provider and model with all patterns, the
-- longest first. Spans of agents and tools are left out, and the log record
-- that repeats a span: their tokens are those of the calls within.
CREATE OR REPLACE VIEW llm_calls AS
WITH (
    SELECT groupArray((concat('^', if(provider = '', '[^\n]*', concat('(', replaceRegexpAll(lower(provider), '[^a-z0-9_]', '\\\\\\0'), ')?')), '\n',
        replaceAll(replaceRegexpAll(model, '[^A-Za-z0-9_*]', '\\\\\\0'), '*', '.*'), '$'), input, ifNull(cached_input, input), output))
    FROM (SELECT * FROM llm_prices ORDER BY length(model) DESC, provider = '', position)
) AS prices,
    if(tokens_in IS NULL AND tokens_out IS NULL, 0, arrayMin(multiMatchAllIndices(concat(lower(provider), '\n', model), prices.1))) AS price -- its place there; 0: none
SELECT
    time, project, event_id, call_id, conversation, user_id, provider, model, operation,
    ifNull(tokens_in, 0) AS input_tokens,
    least(ifNull(tokens_cached, 0), input_tokens) AS cached_tokens,
    ifNull(tokens_out, 0) AS output_tokens,
    ifNull(tokens_all, input_tokens + output_tokens) AS total_tokens,
    if(price > 0, ((input_tokens - cached_tokens) * prices[price].2 + cached_tokens * prices[price].3 + output_tokens * prices[price].4) / 1e6, told_cost) AS cost_usd,
    latency_ms, first_token_ms, status, error, finish_reason, input, output, input_ref, output_ref, source
FROM
(
    SELECT
        timestamp AS time, project, event_id,
        coalesce(accurateCastOrNull(properties.call_id, 'String'), accurateCastOrNull(properties.request_id, 'String'), properties.gen_ai.response.id.:String,
            properties.span_id.:String, toString(event_id), '') AS call_id,
        coalesce(accurateCastOrNull(properties.conversation_id, 'String'), properties.gen_ai.conversation.id.:String, session_id) AS conversation,
        user_id,
        coalesce(properties.gen_ai.provider.name.:String, properties.gen_ai.system.:String, properties.provider.:String, '') AS provider,
        coalesce(properties.gen_ai.request.model.:String, properties.gen_ai.response.model.:String, properties.model.:String, '') AS model,
        coalesce(properties.gen_ai.operation.name.:String, properties.operation.:String, '') AS operation,
        arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), arrayMap(t -> toFloat64OrNull(t), [
            accurateCastOrNull(properties.gen_ai.usage.input_tokens, 'String'), accurateCastOrNull(properties.input_tokens, 'String'),
            accurateCastOrNull(properties.usage.input_tokens, 'String'), accurateCastOrNull(properties.usage.prompt_tokens, 'String')]))::Nullable(Int64) AS tokens_in,
        arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), arrayMap(t -> toFloat64OrNull(t), [
            accurateCastOrNull(properties.gen_ai.usage.cache_read.input_tokens, 'String'), accurateCastOrNull(properties.cached_tokens, 'String'),
            accurateCastOrNull(properties.usage.prompt_tokens_details.cached_tokens, 'String')]))::Nullable(Int64) AS tokens_cached,
        arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), arrayMap(t -> toFloat64OrNull(t), [
            accurateCastOrNull(properties.gen_ai.usage.output_tokens, 'String'), accurateCastOrNull(properties.output_tokens, 'String'),
            accurateCastOrNull(properties.usage.output_tokens, 'String'), accurateCastOrNull(properties.usage.completion_tokens, 'String')]))::Nullable(Int64) AS tokens_out,
        arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), arrayMap(t -> toFloat64OrNull(t), [
            accurateCastOrNull(properties.gen_ai.usage.total_tokens, 'String'), accurateCastOrNull(properties.total_tokens, 'String'),
            accurateCastOrNull(properties.usage.total_tokens, 'String')]))::Nullable(Int64) AS tokens_all,
        arrayFirstOrNull(n -> n BETWEEN 0 AND 1e12, [
            toFloat64OrNull(accurateCastOrNull(properties.cost_usd, 'String')), toFloat64OrNull(accurateCastOrNull(properties.gen_ai.usage.cost, 'String'))]) AS told_cost,
        arrayFirstOrNull(n -> n BETWEEN 0 AND 1e12, [
            toFloat64OrNull(accurateCastOrNull(properties.latency_ms, 'String')), toFloat64OrNull(accurateCastOrNull(properties.duration_ms, 'String'))]) AS latency_ms,
        arrayFirstOrNull(n -> n BETWEEN 0 AND 1e12, [
            toFloat64OrNull(accurateCastOrNull(properties.first_token_ms, 'String')), toFloat64OrNull(accurateCastOrNull(properties.ai.response.msToFirstChunk, 'String')),
            1000 * toFloat64OrNull(accurateCastOrNull(properties.gen_ai.response.time_to_first_chunk, 'String')), 1000 * toFloat64OrNull(accurateCastOrNull(properties.gen_ai.server.time_to_first_token, 'String'))]) AS first_token_ms,
        coalesce(nullIf(properties.error.message.:String, ''), nullIf(properties.error.:String, ''), nullIf(properties.status_message.:String, ''),
            nullIf(properties.error.type.:String, ''), '') AS error,
        if(lower(ifNull(properties.status.:String, '')) IN ('error', 'failed') OR ifNull(properties.status.:Int64, 0) >= 400
            OR lower(ifNull(properties.status.:String, '')) != 'ok' AND error != '', 'error', 'ok') AS status,
        coalesce(properties.gen_ai.response.finish_reasons.:`Array(Nullable(String))`[1], properties.gen_ai.response.finish_reasons.:String, properties.finish_reason.:String, '') AS finish_reason,
        coalesce(
            properties.gen_ai.input.messages.:String, toJSONString(properties.gen_ai.input.messages), nullIf(toJSONString(properties.^gen_ai.input.messages), '{}'),
            properties.gen_ai.prompt.:String, nullIf(toJSONString(properties.^gen_ai.prompt), '{}'),
            properties.input.:String, toJSONString(properties.input), nullIf(toJSONString(properties.^input), '{}'),
            properties.messages.:String, toJSONString(properties.messages), nullIf(toJSONString(properties.^messages), '{}'),
            properties.prompt.:String, toJSONString(properties.prompt), nullIf(toJSONString(properties.^prompt), '{}'), '') AS whole_input,
        coalesce(
            properties.gen_ai.output.messages.:String, toJSONString(properties.gen_ai.output.messages), nullIf(toJSONString(properties.^gen_ai.output.messages), '{}'),
            properties.gen_ai.completion.:String, nullIf(toJSONString(properties.^gen_ai.completion), '{}'),
            properties.output.:String, toJSONString(properties.output), nullIf(toJSONString(properties.^output), '{}'),
            properties.completion.:String, toJSONString(properties.completion), nullIf(toJSONString(properties.^completion), '{}'),
            properties.response.:String, toJSONString(properties.response), nullIf(toJSONString(properties.^response), '{}'), '') AS whole_output,
        if(startsWith(whole_input, '{"$blob":{'), JSONExtractRaw(whole_input, '$blob'), '') AS input_ref,
        if(startsWith(whole_output, '{"$blob":{'), JSONExtractRaw(whole_output, '$blob'), '') AS output_ref,
        if(input_ref = '', whole_input, '') AS input,
        if(output_ref = '', whole_output, '') AS output,
        if(properties.`$envelope`.start_time_unix_nano IS NULL, 'native', 'otlp') AS source
    FROM events FINAL
    WHERE (name = 'llm_call' OR properties.gen_ai.request.model IS NOT NULL OR properties.gen_ai.response.model IS NOT NULL OR properties.gen_ai.usage.input_tokens IS NOT NULL)
        AND name NOT IN ('gen_ai.client.inference.operation.details', 'generation-create', 'generation-update')
        AND ifNull(properties.gen_ai.operation.name.:String, '') NOT IN ('create_agent', 'invoke_agent', 'invoke_workflow', 'execute_tool')

    UNION ALL

    SELECT
        coalesce(begin, first_time) AS time, project, first_event AS event_id, call_id,
        if(own_session != '', own_session, trace_session) AS conversation,
        if(own_user != '', own_user, trace_user) AS user_id,
        provider, model, 'generation' AS operation,
        tokens_in, tokens_cached, tokens_out, tokens_all, told_cost,
        if(end >= begin, dateDiff('ms', begin, end), NULL)::Nullable(Float64) AS latency_ms,
        if(first_token >= begin, dateDiff('ms', begin, first_token), NULL)::Nullable(Float64) AS first_token_ms,
        if(level = 'ERROR', said, '') AS error,
        if(level = 'ERROR', 'error', 'ok') AS status,
        '' AS finish_reason, whole_input, whole_output,
        if(startsWith(whole_input, '{"$blob":{'), JSONExtractRaw(whole_input, '$blob'), '') AS input_ref,
        if(startsWith(whole_output, '{"$blob":{'), JSONExtractRaw(whole_output, '$blob'), '') AS output_ref,
        if(input_ref = '', whole_input, '') AS input,
        if(output_ref = '', whole_output, '') AS output,
        'langfuse' AS source
    FROM
    (
        SELECT
            project, call_id,
            argMin(event_id, (name != 'generation-create', at)) AS first_event,
            min(timestamp) AS first_time,
            argMax(trace_id, at) AS trace, max(session_id) AS own_session, max(user_id) AS own_user,
            ifNull(argMax(of_provider, at), '') AS provider, ifNull(argMax(of_model, at), '') AS model,
            argMax(more_cached, at) AS tokens_cached,
            argMax(count_in, at) + ifNull(tokens_cached, 0) AS tokens_in, -- what is cached is told apart
            argMax(count_out, at) AS tokens_out, argMax(count_all, at) AS tokens_all, argMax(cost, at) AS told_cost,
            argMax(started, at) AS begin, argMax(ended, at) AS end, argMax(answered, at) AS first_token,
            ifNull(argMax(of_level, at), '') AS level, ifNull(argMax(message, at), '') AS said,
            ifNull(argMax(of_input, at), '') AS whole_input, ifNull(argMax(of_output, at), '') AS whole_output
        FROM
        (
            SELECT
                project, name, event_id, timestamp, session_id, user_id, (timestamp, name, seq) AS at,
                ifNull(properties.id.:String, toString(event_id)) AS call_id, properties.traceId.:String AS trace_id,
                coalesce(properties.metadata.provider.:String, properties.metadata.ls_provider.:String) AS of_provider,
                properties.model.:String AS of_model,
                arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), arrayMap(t -> toFloat64OrNull(t), [
                    accurateCastOrNull(properties.usageDetails.input, 'String'), accurateCastOrNull(properties.usage.input, 'String'),
                    accurateCastOrNull(properties.usage.promptTokens, 'String')]))::Nullable(Int64) AS count_in,
                arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), arrayMap(t -> toFloat64OrNull(t), [
                    accurateCastOrNull(properties.usageDetails.output, 'String'), accurateCastOrNull(properties.usage.output, 'String'),
                    accurateCastOrNull(properties.usage.completionTokens, 'String')]))::Nullable(Int64) AS count_out,
                arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), arrayMap(t -> toFloat64OrNull(t), [
                    accurateCastOrNull(properties.usageDetails.total, 'String'), accurateCastOrNull(properties.usage.total, 'String'),
                    accurateCastOrNull(properties.usage.totalTokens, 'String')]))::Nullable(Int64) AS count_all,
                arrayFirstOrNull(n -> n BETWEEN 0 AND 1e9 AND n = floor(n), arrayMap(t -> toFloat64OrNull(t), [
                    accurateCastOrNull(properties.usageDetails.input_cached_tokens, 'String'), accurateCastOrNull(properties.usageDetails.cache_read_input_tokens, 'String')]))::Nullable(Int64) AS more_cached,
                arrayFirstOrNull(n -> n BETWEEN 0 AND 1e12, [
                    toFloat64OrNull(accurateCastOrNull(properties.costDetails.total, 'String')), toFloat64OrNull(accurateCastOrNull(properties.usage.totalCost, 'String'))]) AS cost,
                parseDateTime64BestEffortOrNull(accurateCastOrNull(properties.startTime, 'String'), 3, 'UTC') AS started,
                parseDateTime64BestEffortOrNull(accurateCastOrNull(properties.endTime, 'String'), 3, 'UTC') AS ended,
                parseDateTime64BestEffortOrNull(accurateCastOrNull(properties.completionStartTime, 'String'), 3, 'UTC') AS answered,
                properties.level.:String AS of_level, properties.statusMessage.:String AS message,
                coalesce(properties.input.:String, toJSONString(properties.input), nullIf(toJSONString(properties.^input), '{}')) AS of_input,
                coalesce(properties.output.:String, toJSONString(properties.output), nullIf(toJSONString(properties.^output), '{}')) AS of_output
            FROM events
            WHERE name IN ('generation-create', 'generation-update')
        )
        GROUP BY project, call_id
    ) AS generations
    ANY LEFT JOIN
    (
        SELECT project, properties.id.:String AS trace, max(session_id) AS trace_session, max(user_id) AS trace_user
        FROM events
        WHERE name = 'trace-create' AND (session_id != '' OR user_id != '')
        GROUP BY project, trace
    ) AS traces USING (project, trace)
);
