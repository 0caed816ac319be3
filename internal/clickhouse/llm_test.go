package clickhouse

import (
	"bytes"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

// taken is a batcher that keeps a receiver's events.
type taken struct {
	t      *testing.T
	events []pipeline.Event
}

func (b *taken) Wait(context.Context) (string, error) { return "", nil }
func (b *taken) Key(context.Context) string           { return "" }

func (b *taken) Append(_ context.Context, events []pipeline.Event, _ []pipeline.Blob,
	_ pipeline.Durability) (pipeline.Ticket, error) {
	for _, e := range events {
		for _, part := range []*[]byte{&e.Project, &e.Name, &e.SessionID, &e.UserID, &e.Properties, &e.Context} {
			*part = bytes.Clone(*part)
		}
		e.Receiver, e.Seq = []byte("r"), uint64(len(b.events))
		b.events = append(b.events, e)
	}
	return b, nil
}

func (b *taken) Report(f pipeline.Failure) {
	b.t.Errorf("rejected: %s: %s: %s", f.Code, f.Message, f.Raw)
}
func (b *taken) Drop(string) {}

// received returns the receiver's events for a body.
func received(t *testing.T, path, body string) []pipeline.Event {
	t.Helper()
	b := &taken{t: t}
	r := receivertest.New(t, receivertest.Options(tenant.Key{Project: "p", Hash: tenant.HashKey("k")}), b)
	w := httptest.NewRecorder()
	req := httptest.NewRequest("POST", path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth("k", "secret")
	r.ServeHTTP(w, req)
	if w.Code >= 300 {
		t.Fatalf("%s: got %d %s", body, w.Code, w.Body)
	}
	return b.events
}

// calls returns the rows of llm_calls for these events: tokens as (input, cached, written; output, reasoning), and
// further columns.
func calls(t *testing.T, db *DB, columns string, events []pipeline.Event) string {
	t.Helper()
	if err := db.conn.Exec(t.Context(), "TRUNCATE TABLE events"); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "calls", events...)
	return query[string](t, db,
		"SELECT arrayStringConcat(arraySort(groupArray(toString(tuple("+columns+")))), ' ') FROM llm_calls")
}

const tokens = "input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens"

// spans returns an OTLP request. Each line is a span: id parent name key=value….
func spans(lines ...string) string {
	var all []string
	for _, line := range lines {
		fields := strings.Split(line, " | ")
		var attributes []string
		for _, a := range fields[3:] {
			key, value, _ := strings.Cut(a, "=")
			kind := "stringValue"
			if strings.Trim(value, "0123456789") == "" {
				kind = "intValue"
			}
			attributes = append(attributes, fmt.Sprintf(`{"key":%q,"value":{%q:%q}}`, key, kind, value))
		}
		parent := ""
		if fields[1] != "" {
			parent = fmt.Sprintf(`"parentSpanId":"00000000000000%s",`, fields[1])
		}
		all = append(all, fmt.Sprintf(
			`{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"00000000000000%s",%s"name":%q,"startTimeUnixNano":"1795600000000000000","endTimeUnixNano":"1795600001000000000","attributes":[%s]}`,
			fields[0], parent, fields[2], strings.Join(attributes, ",")))
	}
	return `{"resourceSpans":[{"scopeSpans":[{"spans":[` + strings.Join(all, ",") + `]}]}]}`
}

// Which spans of a trace are calls.
func TestWhatIsACall(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	const in, out, model = "gen_ai.usage.input_tokens=", "gen_ai.usage.output_tokens=", "gen_ai.request.model=m"
	chat := func(id, parent string, n string) string {
		return id + " | " + parent + " | chat | gen_ai.operation.name=chat | " + model + " | " + in + n + " | " + out + "1"
	}
	for _, tt := range []struct {
		name  string
		spans []string
		want  string // names and inputs
	}{
		{"an operation", []string{chat("01", "", "5")}, "(5)"},
		{"each operation", []string{
			"01 |  | a | gen_ai.operation.name=text_completion", "02 |  | a | gen_ai.operation.name=generate_content",
			"03 |  | a | gen_ai.operation.name=embeddings",
			"04 |  | a | gen_ai.operation.name=response", "05 |  | a | openinference.span.kind=LLM",
			"06 |  | a | openinference.span.kind=EMBEDDING",
			"07 |  | a | langfuse.observation.type=generation", "08 |  | a | langfuse.observation.type=embedding",
			"09 |  | a | ai.operationId=ai.streamText.doStream",
			"0a |  | ai.embedMany.doEmbed | a=1", "0b |  | a | llm.request.type=completion",
			"0c |  | a | gen_ai.operation.name=CHAT",
		}, "(0) (0) (0) (0) (0) (0) (0) (0) (0) (0) (0)"},
		{"operations of Semantic Kernel, without usage", []string{
			"01 |  | a | gen_ai.operation.name=chat.completions", "02 |  | a | gen_ai.operation.name=chat.streaming_completions",
			"03 |  | a | gen_ai.operation.name=text.completions", "04 |  | a | gen_ai.operation.name=text.streaming_completions",
		}, "(0) (0) (0) (0)"},
		{"LangSmith's prompts and retrievers", []string{
			"01 |  | chain | langsmith.span.kind=chain | gen_ai.operation.name=chain | " + in + "5",
			"02 | 01 | prompt | langsmith.span.kind=prompt | gen_ai.operation.name=chat",
			"03 | 01 | retriever | langsmith.span.kind=retriever | gen_ai.operation.name=embeddings",
			"04 | 01 | model | langsmith.span.kind=llm | gen_ai.operation.name=chat | " + in + "5",
		}, "(5)"},
		{"an RPC that reports usage", []string{"01 |  | InvokeModel | rpc.system=aws-api | " + model + " | " + in + "7"},
			"(7)"},
		{"what says that it is something else", []string{
			"01 |  | a | gen_ai.operation.name=execute_tool | " + model,
			"02 |  | a | openinference.span.kind=RETRIEVER | llm.model_name=m",
			"03 |  | a | langfuse.observation.type=tool | " + in + "7", "04 |  | a | ai.operationId=ai.toolCall | " + in + "7",
			"05 |  | POST | http.request.method=POST | " + model + " | " + in + "7",
			"06 |  | GET | db.system=redis | " + model + " | " + in + "7",
			"07 |  | cache | " + model, "08 |  | plan | gen_ai.operation.name=plan | " + model,
			"09 |  | a | traceloop.span.kind=workflow | " + model,
			"0a |  | a | openinference.span.kind=CHAIN | " + model,
			"0b |  | a | openinference.span.kind=AGENT | " + model + " | " + in + "0",
		}, ""},
		{"an agent's sum", []string{"01 |  | agent | gen_ai.operation.name=invoke_agent | " + in + "30",
			chat("02", "01", "10"), chat("03", "01", "20")}, "(10) (20)"},
		{"two agents, and the call of one says nothing", []string{
			"01 |  | a | gen_ai.operation.name=invoke_agent | " + in + "30", chat("02", "01", "30"),
			"03 |  | b | gen_ai.operation.name=invoke_agent | " + in + "50",
			"04 | 03 | chat | gen_ai.operation.name=chat | " + model,
		}, "(30) (50)"},
		{"an agent beside its calls", []string{"01 |  | agent | gen_ai.operation.name=invoke_agent | " + in + "30",
			chat("02", "", "30")}, "(30)"},
		{"a model that says nothing beside a call",
			[]string{"01 |  | one | " + model + " | " + in + "10", chat("02", "", "30")}, "(10) (30)"},
		{"a sum above a step", []string{"01 |  | run | " + model + " | " + in + "30", "02 | 01 | step | a=1",
			chat("03", "02", "10"), chat("04", "02", "20")}, "(10) (20)"},
		{"sums above sums", []string{"01 |  | run | " + in + "5",
			"02 | 01 | agent | gen_ai.operation.name=invoke_agent | " + in + "5", chat("03", "02", "5")}, "(5)"},
		{"a sum of two models that say nothing",
			[]string{"01 |  | run | " + in + "30", "02 | 01 | one | " + model + " | " + in + "10",
				"03 | 01 | two | " + model + " | " + in + "20"}, "(10) (20)"},
		{"only the parent reports", []string{"01 |  | agent | openinference.span.kind=AGENT | llm.token_count.prompt=30",
			"02 | 01 | call | openinference.span.kind=LLM | llm.model_name=m"}, "(30)"},
		{"only the agent is there", []string{"01 |  | agent run | model_name=m | " + in + "30"}, "(30)"},
		{"a call that failed beside one that did not",
			[]string{"01 |  | agent | gen_ai.operation.name=invoke_agent | " + in + "10", chat("02", "01", "10"),
				"03 | 01 | chat | gen_ai.operation.name=chat | " + model}, "(0) (10)"},
		{"a call with a child that is none",
			[]string{chat("01", "", "5"), "02 | 01 | POST | http.method=POST | " + model + " | " + in + "5"}, "(5)"},
		{"Vercel's parents", []string{
			"01 |  | ai.generateText | ai.operationId=ai.generateText | ai.model.id=m | ai.usage.inputTokens=7",
			"02 | 01 | ai.generateText.doGenerate | ai.operationId=ai.generateText.doGenerate | ai.model.id=m | " +
				"ai.usage.inputTokens=7",
		}, "(7)"},
		{"Langfuse around another's call",
			[]string{"01 |  | gen | langfuse.observation.type=span | " + in + "5", chat("02", "01", "5")}, "(5)"},
		{"an agent of Langfuse's", []string{
			`01 |  | agent | langfuse.observation.type=agent | langfuse.observation.usage_details={"input":5}`,
			`02 | 01 | gen | langfuse.observation.type=generation | langfuse.observation.usage_details={"input":5}`,
		}, "(5)"},
		{"a span that is its own parent", []string{"01 | 01 | run | " + in + "5"}, ""},
	} {
		if got := calls(t, db, "input_tokens", received(t, "/v1/traces", spans(tt.spans...))); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// The names of each convention give the same fields.
func TestNamesOfSpans(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	for _, tt := range []struct{ span, columns, want string }{
		{"gen_ai.operation.name=chat | gen_ai.provider.name=openai | gen_ai.request.model=m | " +
			"gen_ai.usage.input_tokens=100 | gen_ai.usage.cache_read.input_tokens=60 | " +
			"gen_ai.usage.cache_creation.input_tokens=10 | gen_ai.usage.output_tokens=20 | gen_ai.usage.reasoning.output_tokens=5",
			tokens + ", provider, model, operation, latency_ms", "(100,60,10,20,5,'openai','m','chat',1000)"},
		{"llm.request.type=chat | gen_ai.system=Anthropic | gen_ai.response.model=m | gen_ai.usage.prompt_tokens=100 | " +
			"gen_ai.usage.cache_read_input_tokens=60 | gen_ai.usage.cache_creation_input_tokens=10 | " +
			"llm.usage.total_tokens=120 | gen_ai.usage.completion_tokens=20",
			tokens + ", total_tokens, provider, model", "(100,60,10,20,0,120,'Anthropic','m')"},
		{"gen_ai.operation.name=chat | gen_ai.prompt.0.role=user | gen_ai.prompt.0.content=hi | " +
			"gen_ai.completion.0.content=ho | gen_ai.completion.0.finish_reason=stop",
			"input, output, finish_reason",
			`('{"0":{"content":"hi","role":"user"}}','{"0":{"content":"ho","finish_reason":"stop"}}','stop')`},
		{"openinference.span.kind=LLM | llm.provider=x | llm.model_name=m | llm.token_count.prompt=100 | " +
			"llm.token_count.prompt_details.cache_read=60 | llm.token_count.prompt_details.cache_write=10 | " +
			"llm.token_count.completion=20 | llm.token_count.completion_details.reasoning=5 | llm.cost.prompt=1 | " +
			"llm.cost.completion=2 | input.value=hi | input.mime_type=text/plain | output.value=ho | llm.finish_reason=stop",
			tokens + ", provider, model, cost_usd, input, output, finish_reason", "(100,60,10,20,5,'x','m',3,'hi','ho','stop')"},
		{"openinference.span.kind=LLM | llm.input_messages.0.message.role=user | llm.input_messages.0.message.content=hi " +
			"| llm.output_messages.0.message.content=ho", "input, output",
			`('{"0":{"message":{"content":"hi","role":"user"}}}','{"0":{"message":{"content":"ho"}}}')`},
		{"ai.operationId=ai.generateText.doGenerate | ai.model.provider=openai.responses | ai.model.id=m | " +
			"ai.usage.inputTokens=100 | ai.usage.cachedInputTokens=60 | ai.usage.outputTokens=20 | " +
			"ai.usage.reasoningTokens=5 | ai.prompt.messages=[] | ai.response.text=ho | ai.response.finishReason=stop | " +
			"ai.response.msToFirstChunk=90",
			tokens + ", provider, model, input, output, finish_reason, first_token_ms",
			"(100,60,0,20,5,'openai','m','[]','ho','stop',90)"},
		{"ai.operationId=ai.generateText.doGenerate | ai.usage.promptTokens=100 | ai.usage.completionTokens=20", tokens,
			"(100,0,0,20,0)"},
		{"gen_ai.operation.name=chat | gen_ai.usage.input_tokens=100 | gen_ai.usage.details.cache_read_tokens=60 | " +
			"gen_ai.usage.output_tokens=20 | gen_ai.usage.details.reasoning_tokens=5 | operation.cost=2 | events=[{}] | " +
			"all_messages_events=[1]",
			tokens + ", cost_usd, input", "(100,60,0,20,5,2,'[1]')"},
		// Anthropic's own, which excludes them
		{"gen_ai.operation.name=chat | gen_ai.usage.input_tokens=10 | gen_ai.usage.cache_read.input_tokens=900 | " +
			"gen_ai.usage.output_tokens=1", tokens, "(910,900,0,1,0)"},
		{"gen_ai.operation.name=chat | gen_ai.usage.input_tokens=-5 | gen_ai.usage.output_tokens=1e30 | gen_ai.usage.cost=true", tokens + ", cost_usd", "(0,0,0,0,0,NULL)"},
		{"gen_ai.operation.name=chat | gen_ai.usage.input_tokens=200 | gen_ai.usage.output_tokens=9 | " +
			"gen_ai.usage.total_tokens=309 | " +
			"gen_ai.usage.cache_read_input_tokens=60 | gen_ai.usage.cache_write_input_tokens=40 | " +
			"gen_ai.server.time_to_first_token=640",
			tokens + ", total_tokens, first_token_ms", "(300,60,40,9,0,309,640)"}, // Strands
		{"gen_ai.operation.name=chat | gen_ai.server.time_to_first_token=0.5 | " +
			"gen_ai.response.finish_reasons=[\"STOP\",\"LENGTH\"]",
			"first_token_ms, finish_reason", "(500,'STOP')"}, // Spring AI
		{"gen_ai.operation.name=chat | gen_ai.usage.input_tokens=100 | gen_ai.usage.input_tokens.cached=60 | " +
			"gen_ai.usage.input_tokens.cache_write=10 | " +
			"gen_ai.usage.output_tokens=20 | gen_ai.usage.output_tokens.reasoning=5", tokens, "(100,60,10,20,5)"}, // Sentry
		{"langsmith.span.kind=llm | gen_ai.usage.input_tokens=100 | gen_ai.usage.input_token_details={'audio': 0, " +
			"'cache_creation': 10, 'cache_read': 60} | " +
			// Python
			"gen_ai.usage.output_tokens=20 | gen_ai.usage.output_token_details={'reasoning': 5}", tokens, "(100,60,10,20,5)"},
		{`langsmith.span.kind=llm | gen_ai.usage.input_tokens=100 | gen_ai.usage.input_token_details={"cache_read":60} | ` +
			// JavaScript
			`gen_ai.usage.output_tokens=20 | gen_ai.usage.output_token_details={"reasoning":5}`, tokens, "(100,60,0,20,5)"},
		{"gen_ai.operation.name=chat.completions | gen_ai.response.prompt_tokens=100 | gen_ai.response.completion_tokens=20",
			tokens, "(100,0,0,20,0)"},
		{"gen_ai.operation.name=chat | gen_ai.usage.input_tokens=1e2 | gen_ai.usage.output_tokens=20.0", tokens,
			"(100,0,0,20,0)"},
		{`langfuse.observation.type=generation | langfuse.observation.model.name=m | langfuse.observation.input=[{"role":"user"}] | langfuse.observation.output=ho | langfuse.observation.usage_details={"input":40,"input_cached_tokens":60,"output":20,"total":120} | langfuse.observation.cost_details={"input":0.1,"output":0.2} | langfuse.observation.completion_start_time="2026-11-25T09:46:40.250Z" | langfuse.observation.level=ERROR | langfuse.observation.status_message=no`,
			tokens + ", model, input, output, round(cost_usd, 9), first_token_ms, status, error",
			`(100,60,0,20,0,'m','[{"role":"user"}]','ho',0.3,250,'error','no')`},
		{`langfuse.observation.type=generation | langfuse.observation.usage_details={"prompt_tokens":"100","completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":5}} | langfuse.observation.cost_details={"input":0.1,"output":0.2,"total":0.5} | langfuse.observation.completion_start_time=2026-11-25T09:46:40.250Z`,
			tokens + ", cost_usd, first_token_ms", "(100,60,0,20,5,0.5,250)"},
		{`langfuse.observation.type=generation | langfuse.observation.usage_details=not JSON | langfuse.observation.cost_details={"input":"x","total":-1}`, tokens + ", cost_usd", "(0,0,0,0,0,NULL)"},
		{`gen_ai.operation.name=chat | usage={"input_tokens":40,"cache_read_input_tokens":50,"cache_creation_input_tokens":10,"output_tokens":20}`, tokens, "(100,50,10,20,0)"},
	} {
		if got := calls(t, db, tt.columns, received(t, "/v1/traces", spans("01 |  | span | "+tt.span))); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.span, got, tt.want)
		}
	}
}

// Messages in a span's events, and in the log record that repeats them.
func TestMessagesOfEvents(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	body := strings.Replace(spans("01 |  | chat | gen_ai.operation.name=chat"), `"attributes":`, `"events":[{"name":"gen_ai.content.prompt","attributes":[{"key":"gen_ai.prompt","value":{"stringValue":"hi"}}]},
		{"name":"First Token Stream Event","timeUnixNano":"1795600000250000000"},
		{"name":"gen_ai.choice","attributes":[{"key":"finish_reason","value":{"stringValue":"stop"}},{"key":"message","value":{"stringValue":"ho"}}]}],"attributes":`, 1)
	events := received(t, "/v1/traces", body)
	events = append(events, received(t, "/v1/logs", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[
		{"timeUnixNano":"1795600000000000000","traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0000000000000001","eventName":"gen_ai.client.inference.operation.details","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"chat"}},{"key":"gen_ai.usage.input_tokens","value":{"intValue":"5"}}]},
		{"timeUnixNano":"1795600000000000000","traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0000000000000001","eventName":"gen_ai.user.message","attributes":[{"key":"gen_ai.system","value":{"stringValue":"openai"}}]}]}]}]}`)...)
	got := calls(t, db,
		"JSONExtractString(input, 1, 'attributes', 'gen_ai', 'prompt'), JSONExtractString(output, 1, 'attributes', "+
			"'message'), first_token_ms, finish_reason", events)
	if want := "('hi','ho',250,'stop')"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Usage objects of all kinds, in native events and in Langfuse's.
func TestUsageObjects(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	for _, tt := range []struct{ usage, want string }{
		// OpenAI
		{`{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":5}}`, "(100,60,0,20,5)"},
		// Responses
		{`{"input_tokens":100,"input_tokens_details":{"cached_tokens":60},"output_tokens":20,"output_tokens_details":{"reasoning_tokens":5},"total_tokens":120}`, "(100,60,0,20,5)"},
		// Anthropic
		{`{"input_tokens":30,"cache_read_input_tokens":60,"cache_creation_input_tokens":10,"output_tokens":20}`,
			"(100,60,10,20,0)"},
		// LiteLLM
		{`{"prompt_tokens":100,"cache_read_input_tokens":60,"cache_creation_input_tokens":10,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":60}}`, "(100,60,10,20,0)"},
		// LangChain through Langfuse
		{`{"input":30,"input_cache_read":60,"input_cache_creation":10,"output":15,"output_reasoning":5,"total":120}`,
			"(100,60,10,20,5)"},
		// LangChain
		{`{"input_tokens":100,"output_tokens":20,"total_tokens":120,"input_token_details":{"cache_read":60,"cache_creation":10},"output_token_details":{"reasoning":5}}`, "(100,60,10,20,5)"},
		// the total says it
		{`{"input":100,"input_cached_tokens":60,"output":20,"total":120}`, "(100,60,0,20,0)"},
		// Gemini
		{`{"promptTokenCount":100,"cachedContentTokenCount":60,"candidatesTokenCount":15,"thoughtsTokenCount":5,"totalTokenCount":120}`, "(100,60,0,20,5)"},
		// Bedrock
		{`{"inputTokens":30,"cacheReadInputTokens":60,"cacheWriteInputTokens":10,"outputTokens":20}`, "(100,60,10,20,0)"},
		// Vercel
		{`{"inputTokens":100,"inputTokenDetails":{"cacheReadTokens":60},"outputTokens":20,"outputTokenDetails":{"reasoningTokens":5}}`, "(100,60,0,20,5)"},
		{`{"promptTokens":100,"completionTokens":20}`, "(100,0,0,20,0)"},
		{`{"prompt_tokens":100,"prompt_cache_hit_tokens":60,"completion_tokens":20}`, "(100,60,0,20,0)"}, // DeepSeek
		{`{"prompt_tokens":"100","completion_tokens":20.0,"prompt_tokens_details":null}`, "(100,0,0,20,0)"},
		{`{"prompt_tokens":-1,"completion_tokens":true,"prompt_tokens_details":[1],"total_tokens":{}}`, "(0,0,0,0,0)"},
		{`{"prompt_tokens":1e30,"input_tokens":7,"output_tokens":2.5}`, "(7,0,0,0,0)"},
	} {
		native := `{"name":"llm_call","properties":{"model":"m","usage":` + tt.usage + `}}`
		if got := calls(t, db, tokens, received(t, "/v1/events", native)); got != tt.want {
			t.Errorf("native: %s: got %s, want %s", tt.usage, got, tt.want)
		}
		langfuse := `{"batch":[{"id":"1","type":"generation-create","timestamp":"2026-11-25T10:00:00Z","body":{"id":"g","usageDetails":` + tt.usage + `}}]}`
		if got := calls(t, db, tokens, received(t, "/api/public/ingestion", langfuse)); got != tt.want {
			t.Errorf("Langfuse: %s: got %s, want %s", tt.usage, got, tt.want)
		}
	}
}

// Calls logged by gateways, and the exports of LiteLLM and Langfuse.
func TestCallsOfGateways(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	const litellm = `{"id":"chatcmpl-1","trace_id":"t","call_type":"acompletion","startTime":1795514400.12,"endTime":1795514401.5,"completionStartTime":1795514400.32,"model":"gpt-4o","custom_llm_provider":"openai","prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"response_cost":0.0005,
		"metadata":{"usage_object":{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":60}}},"messages":[{"role":"user","content":"hi"}],"response":{"choices":[{"finish_reason":"stop","message":{"content":"ho"}}]},"status":"success","end_user":"u"}`
	const columns = tokens +
		", cost_usd, provider, model, latency_ms, first_token_ms, status, finish_reason, user_id, call_id, source"
	want := "(100,60,0,20,0,0.0005,'openai','gpt-4o',1380,200,'ok','stop','u','chatcmpl-1','litellm')"
	if got := calls(t, db, columns, received(t, "/litellm", litellm)); got != want {
		t.Errorf("LiteLLM: got %s, want %s", got, want)
	}
	export := received(t, "/v1/events",
		`{"name":"imported","user_id":"u","timestamp":1795514400.12,"properties":`+litellm+`}`)
	if got := calls(t, db, columns, export); got != want {
		t.Errorf("LiteLLM's export: got %s, want %s", got, want)
	}
	failed := `{"id":"2","call_type":"acompletion","model":"m","status":"failure","error_str":"too long","prompt_tokens":0,"completion_tokens":0}`
	if got, want := calls(t, db, "status, error", received(t, "/litellm", failed)), "('error','too long')"; got != want {
		t.Errorf("a failure of LiteLLM: got %s, want %s", got, want)
	}
	if got := calls(t, db, "model", received(t, "/litellm", `{"call_type":"call_mcp_tool","model":"m"}`)); got != "" {
		t.Errorf("a tool's call of LiteLLM: got %s", got)
	}
	helicone := `{"providerRequest":{"url":"custom-model-nopath","json":{"model":"m","messages":[{"role":"user","content":"hi"}]},"meta":{}},
		"providerResponse":{"status":200,"json":{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens":20}}},
		"timing":{"startTime":{"seconds":1795514400,"milliseconds":120},"endTime":{"seconds":1795514401,"milliseconds":500},"timeToFirstToken":90},"provider":"OPENAI"}`
	if got, want := calls(t, db,
		tokens+", provider, model, latency_ms, first_token_ms, finish_reason, JSONExtractString(input, 1, 'content'), source",
		received(t, "/custom/v1/log", helicone)),
		"(100,60,0,20,0,'OPENAI','m',1380,90,'stop','hi','helicone')"; got != want {
		t.Errorf("Helicone: got %s, want %s", got, want)
	}
	blob := received(t, "/v1/events", `[{"name":"chat","properties":{"id":"o1","trace_id":"t1","type":"GENERATION","start_time":"2026-11-24T10:00:00.000Z","end_time":"2026-11-24T10:00:01.500Z","usage_details":{"input":10,"output":2,"total":12},"cost_details":{"total":0.5},"provided_model_name":"gpt-4o"}},
		{"name":"span","properties":{"id":"o2","trace_id":"t1","type":"SPAN","usage_details":{"input":10}}},{"name":"imported","properties":{"id":"t1"}}]`)
	if got, want := calls(t, db, tokens+", cost_usd, model, latency_ms, call_id, source", blob),
		"(10,0,0,2,0,0.5,'gpt-4o',1500,'o1','langfuse')"; got != want {
		t.Errorf("Langfuse's export: got %s, want %s", got, want)
	}
}

// Inputs that once gave wrong sums.
func TestCasesOfCalls(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	for file, tt := range map[string]struct{ path, columns, want string }{
		"llm-agent-openinference.json": {"/v1/traces", "total_tokens", "(110) (220)"},
		"llm-agent-pydantic.json":      {"/v1/traces", "total_tokens", "(127)"},
		"llm-cache-names.json": {"/v1/traces", "model, input_tokens, cached_tokens, input",
			"('m4',1000,900,'') ('m5',1000,900,'hi')"},
		"langfuse-usage.json": {"/api/public/ingestion",
			"call_id, input_tokens, cached_tokens, output_tokens, round(cost_usd, 9)",
			"('g1',100,60,20,NULL) ('g4',100,0,20,0.3)"},
		"litellm.ndjson": {"/litellm", "input_tokens, output_tokens, cost_usd, user_id, latency_ms",
			"(100,20,0.0005,'u',1380)"},
	} {
		body, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		if got := calls(t, db, tt.columns, received(t, tt.path, string(body))); got != tt.want {
			t.Errorf("%s: got %s, want %s", file, got, tt.want)
		}
	}
}
