package llm

import (
	"fmt"
	"slices"
	"strings"
)

// CallsViewName is the view's name in the database.
const CallsViewName = "llm_calls"

// View is a view that `penstock setup` makes.
type View struct {
	Name, Query, Comment string
	Columns              map[string]string // their comments
}

// CallsView is the view llm_calls, as docs/guides/llm.md describes it. It
// reads the tables events, with Columns, and llm_prices of the view's database.
//
// One row is one call. The first half is native events and OpenTelemetry's
// spans; the second half is Langfuse's ingestion API, where the events with one
// id describe one call and their trace knows the conversation.
func CallsView() View {
	const comment = "One row for each call of a language model. Filter by time and project"
	return View{CallsViewName, callsQuery(), comment, callsColumns}
}

var callsColumns = map[string]string{
	"time": "When the call began, UTC", "project": "Project",
	"event_id":     "Id of the row in events; of Langfuse's API: of the create event",
	"call_id":      "The client's id of the call, or the event's id",
	"conversation": "Conversation or session, empty if unknown", "user_id": "User, empty if unknown",
	"provider": "Provider, empty if unknown", "model": "Model, empty if unknown",
	"operation":          "Operation, empty if unknown",
	"input_tokens":       "All input tokens, cached ones included; 0 if unknown",
	"cached_tokens":      "Part of input_tokens that was read from the provider's cache",
	"cache_write_tokens": "Part of input_tokens that was written to the provider's cache",
	"output_tokens":      "All output tokens, reasoning included; 0 if unknown",
	"reasoning_tokens":   "Part of output_tokens",
	"total_tokens":       "The client's total, or input plus output",
	"cost_usd":           "By llm.prices; without a price there, the client's cost; NULL if unknown",
	"latency_ms":         "Duration, ms; NULL if unknown",
	"first_token_ms":     "Time to the first token, ms; NULL if unknown",
	"status":             "ok or error", "error": "Message of the error", "finish_reason": "The first one",
	"input":     "Text, or JSON as text; empty if there is none, and if it is a blob",
	"output":    "Text, or JSON as text; empty if there is none, and if it is a blob",
	"input_ref": "Blob reference of a large input, as JSON", "output_ref": "Blob reference of a large output, as JSON",
	"source": "native, otlp, langfuse, litellm or helicone",
}

func callsQuery() string {
	half := func(query string) string { return "\n    SELECT " + common + " FROM (" + query + "\n    )" }
	return fmt.Sprintf(callsView, half(eventCalls())+"\n    UNION ALL"+half(langfuseCalls()))
}

// callsView finds a price by one pass over provider and model with all patterns,
// the longest first: a comparison price by price takes 30 times as long.
const callsView = `
SELECT
    time, project, event_id, call_id, conversation, user_id, provider, model, operation,
    input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
    greatest(ifNull(tokens_all, 0), input_tokens + output_tokens) AS total_tokens,
    if(tariff.1 = '', told_cost,
        ((input_tokens - cached_tokens) * tariff.2 + cached_tokens * tariff.3 + output_tokens * tariff.4)
            / 1e6) AS cost_usd,
    latency_ms, first_token_ms, status, error, finish_reason,
    if(input_ref = '', whole_input, '') AS input, if(output_ref = '', whole_output, '') AS output, input_ref,
        output_ref, source
FROM
(
    WITH (
        SELECT groupArray((concat('^', if(provider = '', '[^\n]*', concat('(', replaceRegexpAll(lower(provider),
            '[^a-z0-9_]', '\\\\\\0'), ')?')), '\n',
            replaceAll(replaceRegexpAll(model, '[^A-Za-z0-9_*]', '\\\\\\0'), '*', '.*'), '$'), input,
                ifNull(cached_input, input), output))
        FROM (SELECT * FROM llm_prices ORDER BY length(model) DESC, provider = '', position)
    ) AS prices
    SELECT *,
        prices[if(unknown, 0, arrayMin(multiMatchAllIndices(concat(lower(provider), '\n', model),
            prices.1)))] AS tariff, -- empty: none
        if(startsWith(whole_input, '{"$blob":{'), JSONExtractRaw(whole_input, '$blob'), '') AS input_ref,
        if(startsWith(whole_output, '{"$blob":{'), JSONExtractRaw(whole_output, '$blob'), '') AS output_ref
    FROM
    (
        SELECT *,
            tokens_in IS NULL AND tokens_out IS NULL AS unknown,
            ifNull(tokens_cached, 0) AS cached_tokens, ifNull(tokens_written, 0) AS cache_write_tokens,
                ifNull(tokens_reasoning, 0) AS reasoning_tokens,
            -- An input below its own parts came without them; so did one to which the total adds them.
            ifNull(tokens_in, 0) + if(cached_tokens + cache_write_tokens > ifNull(tokens_in, 0)
                OR ifNull(tokens_all = tokens_in + tokens_out + cached_tokens + cache_write_tokens, 0),
                cached_tokens + cache_write_tokens, 0) AS input_tokens,
            ifNull(tokens_out, 0) + if(reasoning_tokens > ifNull(tokens_out, 0), reasoning_tokens, 0) AS output_tokens
        FROM (%s
        )
    )
)`

// common is what both halves of the view have.
const common = "time, project, event_id, call_id, conversation, user_id, provider, model, operation, tokens_in, " +
	"tokens_out, tokens_all, tokens_cached, tokens_written, tokens_reasoning, told_cost, " +
	"latency_ms, first_token_ms, error, status, finish_reason, whole_input, whole_output, source"

// eventCalls is the half of native events and spans. PREWHERE lets the index of
// MarkColumn skip what holds no call.
func eventCalls() string {
	var columns []string
	for _, l := range labels() {
		columns = append(columns, at("labels", labels(), l.name)+" AS "+l.name)
	}
	for _, t := range times() {
		columns = append(columns, at("numbers", numbers(), t.name)+" AS "+t.name)
	}
	id := at("texts", texts(), "call_id")
	return `
        SELECT
            timestamp AS time, project, event_id, user_id, llm_conversation AS conversation,
            if(` + id + ` = '', toString(event_id), ` + id + `) AS call_id, ` + strings.Join(columns, ", ") + `,
            ` + at("texts", texts(), "error") + ` AS error, ` + usageColumns("llm.numbers[%d]::Nullable(Int64)") + `,
            coalesce(` + ownCost + `, ` + usageCost + `) AS told_cost,
            ` + firstBody(Input, promptEvents) + ` AS whole_input,
            ` + firstBody(Output, answerEvents) + ` AS whole_output
        FROM events FINAL
        PREWHERE is_llm
        WHERE llm.class = ` + saidSo + ` OR llm.class != ` + noCall + ` AND llm.span NOT IN (` + repeated() + `)`
}

// Costs are in usage behind the counts.
const (
	ownCost   = "llm.numbers[7]"
	usageCost = "llm.numbers[8]"
)

// usageColumns are the counts of tokens of a usage; %d of the expression is a count's place.
func usageColumns(expression string) string {
	var all []string
	for i, c := range counted {
		all = append(all, fmt.Sprintf(expression, i+1)+" AS "+c.column)
	}
	return strings.Join(all, ", ")
}

func failure() string {
	return coalesce(append(each(Error, func(p string) string { return "nullIf(" + text(p) + ", '')" }), "''"))
}

func sourceOf() string {
	return "multiIf(" + isSpan() + ", 'otlp', " + text("call_type") + " != '', 'litellm', " +
		text("providerRequest.url") + " != '', 'helicone', " + isExport() + ", 'langfuse', 'native')"
}

// statusOf returns the status of an event with this error expression.
func statusOf(failure string) string {
	status := "lower(ifNull(" + text("status") + ", ''))"
	return `if(` + status + ` IN ('error', 'failed', 'failure') OR coalesce(` + typed("status", "Int64") + `,
                    ` + typed("status", "Float64") + `, 0) >= 400
                    OR ifNull(` + text("langfuse.observation.level") + `, '') = 'ERROR'
                    OR ` + status + ` NOT IN ('ok', 'success') AND ` + failure + ` != '', 'error', 'ok')`
}

// How sure it is that an event is a call.
const (
	noCall   = "0"
	saidSo   = "1" // it says that it is one, and reports usage
	parental = "2" // a span that says that it is an agent, a chain or the like, and reports usage
	possible = "3" // it says nothing, and reports usage
	silent   = "4" // it says that it is one, and reports no usage
)

// isSpan tells spans from log records and native events.
func isSpan() string { return value("$envelope.start_time_unix_nano") + " IS NOT NULL" }

// isExport knows a row of Langfuse's blob storage export.
func isExport() string {
	return filled("type") + " IN ('GENERATION', 'EMBEDDING') AND " + filled("trace_id") + " != ''"
}

// repeats is the log record that repeats its span.
func repeats() string {
	return "name = 'gen_ai.client.inference.operation.details' AND " + filled("span_id") + " != ''"
}

// spanHash identifies a span by the path of its id, or its parent.
func spanHash(path string) string {
	return "cityHash64(project, " + filled("trace_id") + ", " + filled(path) + ")"
}

// reports says whether a span reports usage, without its counts: those are
// costly, and asked for less often.
func reports() string {
	var all []string
	for _, p := range usageMarks {
		all = append(all, "ifNull("+loose(p)+", '0') NOT IN ('0', '')")
	}
	return "(" + strings.Join(all,
		" OR ") + " OR match(ifNull(" + text("langfuse.observation.usage_details") + ", ''), '[1-9]'))"
}

// class is how sure it is that the event is a call. No description of a call by
// Langfuse's ingestion API is one: several make one.
func class() string {
	w, r := word(), reports()
	return "multiIf(" + repeats() + " OR name IN " + list(langfuseEvents) + ", " + noCall + ", name = 'llm_call' OR " +
		w + " IN " + list(Calls) + " OR " + isExport() + ", if(" + r + ", " + saidSo + ", " + silent + "), NOT " + r +
		" OR " + w + " IN " + list(Never) + " OR " + present(foreign) + ", " + noCall + ", " + w + " = '', " + possible +
		", " + filled("trace_id") + " = '', " + noCall + ", " + parental + ")"
}

// word is the kind that an event names; the most specific convention counts.
func word() string {
	kind := func(path string) string { return "lower(" + filled(path) + ")" }
	langfuse, inference, langsmith := kind("langfuse.observation.type"), kind("openinference.span.kind"),
		kind("langsmith.span.kind")
	vercel := "coalesce(nullIf(" + text("ai.operationId") + ", ''), toString(name))"
	litellm := "if(" + text("model") + " != '', " + kind("call_type") + ", '')"
	return "multiIf(" + langfuse + " NOT IN ('', 'span'), " + langfuse + ", " +
		inference + " NOT IN ('', 'unknown'), " + inference + ", " + langsmith + " != '', " + langsmith + ", " +
		"match(" + vercel + ", '^ai\\\\.[A-Za-z]+\\\\.do(Generate|Stream|Embed)($|[^A-Za-z])'), 'generation', " +
		"startsWith(" + vercel + ", 'ai.'), lower(" + vercel + "), " +
		kind("gen_ai.operation.name") + " != '', " + kind("gen_ai.operation.name") + ", " + litellm + " != '', " + litellm +
		", " + kind("traceloop.span.kind") + ")"
}

// marks selects possible calls by a few paths.
func marks() string {
	said := []string{"gen_ai.operation.name", "openinference.span.kind", "langsmith.span.kind",
		"langfuse.observation.type",
		"ai.operationId"}
	return "name = '" + nativeCall + "' OR " + present(append(said, usageMarks...)) + " OR " + isExport() +
		" OR lower(" + filled("call_type") + ") IN " + list(Calls)
}

// usageMarks are attributes of spans that report usage without saying that they are calls.
var usageMarks = []string{"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"}

// repeated selects the spans whose usage another span of the trace reports:
//
//   - a possible call above a span that reports
//   - a parent without calls of its own, in a trace with a call that reports
//   - a parent above a span that reports
//   - a call without usage, below one of these that counts
//
// It reads only traces with such spans.
func repeated() string {
	const (
		unsure = "IN (" + parental + ", " + possible + ")"
		none   = "[]::Array(UInt32)"
	)
	return `
        SELECT arrayJoin(arrayConcat(
            arrayMap(i -> s[i], arrayFilter(i -> c[i] ` + unsure + ` AND NOT has(counted, i), numbers)),
            arrayMap(i -> s[i], arrayFilter(i -> c[i] = ` + silent + `
                AND has(counted, arrayFold((at, n) -> if(at = 0 OR has(counted, at), at, up[at]), range(64),
                    up[i])), numbers)))) AS span
        FROM (SELECT *, arrayFilter(i -> c[i] ` + unsure + ` AND NOT has(above.1,
            i) AND NOT (told AND c[i] = ` + parental + ` AND NOT has(overCalls.1, i)), numbers) AS counted
        FROM (SELECT *, has(c, ` + saidSo + `) AS told,
            -- The parents of those that report, their parents, and so on: (all, the last level).
            arrayFold((done, n) -> (arrayConcat(done.1, done.2), arrayDistinct(arrayFilter(i -> i > 0
                AND NOT has(done.1, i) AND NOT has(done.2, i),
                arrayMap(i -> up[i], done.2)))), range(64), (` + none + `, reporting)) AS above,
            -- Those above calls, whether these report or not: their own calls are known.
            arrayFold((done, n) -> (arrayConcat(done.1, done.2), arrayDistinct(arrayFilter(i -> i > 0
                AND NOT has(done.1, i) AND NOT has(done.2, i),
                arrayMap(i -> up[i], done.2)))), range(64), (` + none + `, calling)) AS overCalls
        FROM (SELECT *, arrayFilter(i -> i > 0, arrayDistinct(arrayMap(i -> up[i],
            arrayFilter(i -> c[i] NOT IN (` + noCall + `, ` + silent + `), numbers)))) AS reporting,
            arrayFilter(i -> i > 0, arrayDistinct(arrayMap(i -> up[i],
            arrayFilter(i -> c[i] IN (` + saidSo + `, ` + silent + `), numbers)))) AS calling
        FROM (SELECT *, arrayEnumerate(s) AS numbers, arrayMap(x -> toUInt32(indexOf(s, x)), p) AS up -- 0: no parent
        FROM
        (
            SELECT project, llm_trace, groupArray(` + spanHash("span_id") + `) AS s,
                groupArray(` + spanHash("parent_span_id") + `) AS p, groupArray(llm.class) AS c
            FROM events
            PREWHERE llm_trace IN
            (
                SELECT llm_trace FROM events PREWHERE is_llm WHERE llm_trace != '' AND llm.class ` + unsure + `
            )
            WHERE ` + isSpan() + `
            GROUP BY project, llm_trace
        )))))`
}

// langfuseEvents are the events of the ingestion API that describe calls; an
// observation may be something else.
var langfuseEvents = []string{"generation-create", "generation-update", "embedding-create", "embedding-update",
	"observation-create", "observation-update"}

// langfuseCalls is the half for Langfuse's ingestion API. For each field, the newest event of a call counts.
func langfuseCalls() string {
	return `
        SELECT *,
            coalesce(begin, first_time) AS time, first_event AS event_id,
            if(own_session != '', own_session, trace_session) AS conversation,
            if(own_user != '', own_user, trace_user) AS user_id,
            'generation' AS operation, coalesce(own_cost, usage_cost) AS told_cost,
            if(end >= begin, dateDiff('ms', begin, end), NULL)::Nullable(Float64) AS latency_ms,
            if(first_token >= begin, dateDiff('ms', begin, first_token), NULL)::Nullable(Float64) AS first_token_ms,
            if(level = 'ERROR', said, '') AS error, if(level = 'ERROR', 'error', 'ok') AS status,
                '' AS finish_reason, 'langfuse' AS source
        FROM
        (
            SELECT
                project, call_id,
                argMin(event_id, (NOT endsWith(name, '-create'), at)) AS first_event,
                min(timestamp) AS first_time,
                argMax(trace_id, at) AS trace, max(session_id) AS own_session, max(user_id) AS own_user,
                ifNull(argMax(of_provider, at), '') AS provider, ifNull(argMax(of_model, at), '') AS model,
                ` + usageColumns("argMax(of_usage[%d], at)::Nullable(Int64)") + `,
                argMax(of_usage[7], at) AS own_cost, argMax(of_usage[8], at) AS usage_cost,
                argMax(started, at) AS begin, argMax(ended, at) AS end, argMax(answered, at) AS first_token,
                ifNull(argMax(of_level, at), '') AS level, ifNull(argMax(message, at), '') AS said,
                ifNull(argMax(of_input, at), '') AS whole_input, ifNull(argMax(of_output, at), '') AS whole_output
            FROM
            (
                SELECT
                    project, name, event_id, timestamp, session_id, user_id, (timestamp, name, seq) AS at,
                    ifNull(properties.id.:String, toString(event_id)) AS call_id,
                        properties.traceId.:String AS trace_id,
                    coalesce(` + text("metadata.provider") + `, ` + text("metadata.ls_provider") + `) AS of_provider,
                    properties.model.:String AS of_model,
                    llm.numbers AS of_usage,
                    parseDateTime64BestEffortOrNull(accurateCastOrNull(properties.startTime, 'String'), 3,
                        'UTC') AS started,
                    parseDateTime64BestEffortOrNull(accurateCastOrNull(properties.endTime, 'String'), 3,
                        'UTC') AS ended,
                    parseDateTime64BestEffortOrNull(accurateCastOrNull(properties.completionStartTime, 'String'), 3,
                        'UTC') AS answered,
                    properties.level.:String AS of_level, properties.statusMessage.:String AS message,
                    coalesce(` + body("input") + `) AS of_input,
                    coalesce(` + body("output") + `) AS of_output
                FROM events
                PREWHERE is_llm AND name IN ` + list(langfuseEvents) + `
                WHERE (NOT startsWith(name, 'observation-') OR upper(ifNull(properties.type.:String,
                        '')) IN ('GENERATION', 'EMBEDDING'))
            )
            GROUP BY project, call_id
        ) AS generations
        ANY LEFT JOIN
        (
            SELECT project, properties.id.:String AS trace, max(session_id) AS trace_session, max(user_id) AS trace_user
            FROM events
            WHERE name = 'trace-create' AND (session_id != '' OR user_id != '')
            GROUP BY project, trace
        ) AS traces USING (project, trace)`
}

// Events of a span that hold messages, as instrumentation wrote them before the
// attributes existed.
var (
	promptEvents = []string{"gen_ai.content.prompt", "gen_ai.system.message", "gen_ai.user.message",
		"gen_ai.assistant.message", "gen_ai.tool.message"}
	answerEvents = []string{"gen_ai.content.completion", "gen_ai.choice"}
)

// firstBody returns a field's first body. multiIf computes the JSON only for rows without an earlier body; coalesce
// would compute it for all.
func firstBody(f Field, events []string) string {
	var all []string
	for _, p := range paths(f) {
		all = append(all, filled(p)+" != '', "+text(p), value(p)+" IS NOT NULL, toJSONString("+value(p)+")",
			"toJSONString("+tree(p)+") != '{}', toJSONString("+tree(p)+")")
	}
	return "ifNull(multiIf(" + strings.Join(all, ", ") + ", " + eventBodies(events) + "), '')"
}

func eventBodies(names []string) string {
	return `nullIf(toJSONString(arrayFilter(e -> ` + member("name") + ` IN ` + list(names) + `,
		` + typed("events", "Array(JSON)") + `)), '[]')`
}

// answerReason is the finish reason of a span whose answer is an event.
func answerReason() string {
	return "nullIf(arrayFirst(r -> r != '', arrayMap(e -> if(ifNull(" + member("name") + ", '') = 'gen_ai.choice', " +
		"ifNull(" + member("attributes.finish_reason") + ", ''), ''), " + typed("events", "Array(JSON)") + ")), '')"
}

// firstTokenEvent is OpenInference's event of a span.
func firstTokenEvent() string {
	nanoseconds := func(value string) string { return "toFloat64OrNull(toString(" + value + "))" }
	event := "arrayFirst(e -> ifNull(" + member("name") + ", '') = 'First Token Stream Event', " +
		typed("events", "Array(JSON)") +
		").time_unix_nano"
	return "round((" + nanoseconds(event) + " - " + nanoseconds(value("$envelope.start_time_unix_nano")) + ") / 1e6, 2)"
}

func latencyColumn() string {
	begin, end := coalesce(each(BeginAt, milliseconds)), coalesce(each(EndAt, milliseconds))
	numbers := mapped(paths(Latency), number)
	for _, p := range paths(LatencySec) {
		numbers = append(numbers, "1000 * "+number(p))
	}
	// Start and end win over a time in seconds: for streamed answers, LiteLLM's is the time of the first token.
	numbers = slices.Insert(numbers, len(paths(Latency)), "round("+end+" - "+begin+", 3)")
	return amount(numbers)
}

func firstTokenColumn() string {
	numbers := mapped(paths(FirstToken), number)
	for _, p := range paths(FirstTokenSec) {
		numbers = append(numbers, "1000 * "+number(p))
	}
	for _, p := range paths(FirstTokenAny) {
		numbers = append(numbers, "if(ifNull(1000 * "+number(p)+" > "+number("duration_ms")+", 0), 1, 1000) * "+number(p))
	}
	begin := coalesce(append(each(BeginAt, milliseconds), "toFloat64(toUnixTimestamp64Milli(timestamp))"))
	numbers = append(numbers, "round("+coalesce(each(FirstTokenAt, milliseconds))+" - "+begin+", 3)", firstTokenEvent())
	return amount(numbers)
}
