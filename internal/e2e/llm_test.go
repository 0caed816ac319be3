package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// config sets the configuration of commands, in addition to the environment.
func (s *stack) config(text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "penstock.yaml"), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// Calls of language models are rows of one view, by whatever way they came, and
// each question of docs/guides/llm.md has an answer.
func TestLLMCalls(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	s.config(`llm: {prices: [{model: "gpt-4o*", provider: openai, input: 2.5, cached_input: 1.25, output: 10}, {model: "gpt-4o-mini*", input: 0.15, output: 0.6},
		{model: "*", provider: Acme, input: 1, output: 2}, {model: "large", input: 4, output: 8}]}`)
	if out := s.must("setup"); !strings.Contains(out, "llm_prices: 4 written") {
		t.Errorf("setup: %s", out)
	}
	if out := s.must("setup"); strings.Contains(out, "llm_prices") {
		t.Errorf("setup wrote the same prices again: %s", out)
	}
	r := s.start("r1", "receive")
	s.start("l1", "load")
	now := time.Now().UTC().Truncate(time.Second).Add(-time.Minute)
	at := func(ms int) string {
		return now.Add(time.Duration(ms) * time.Millisecond).Format("2006-01-02T15:04:05.000Z")
	}
	native := fmt.Sprintf(`[
		{"name":"llm_call","event_id":"n1","timestamp":%[1]q,"session_id":"s","user_id":"u-1","properties":{"request_id":"r-1","conversation_id":"c-1","provider":"acme","model":"small-2","finish_reason":"stop",
			"input_tokens":1000,"cached_tokens":400,"output_tokens":100,"first_token_ms":90,"latency_ms":1000,"cost_usd":7,"messages":[{"role":"user","content":"hello"}]}},
		{"name":"asked","event_id":"n2","timestamp":%[1]q,"session_id":"c-2","properties":{"gen_ai.request.model":"unheard-of","gen_ai.provider.name":"nobody","gen_ai.usage.input_tokens":5,"gen_ai":{"output":{"messages":"told"}},"error":{"message":"refused"}}},
		{"name":"llm_call","event_id":"n3","timestamp":%[1]q,"properties":{"call_id":"large","model":"large","provider":"other","input":%[2]q,"output":{"a":1},"latency_ms":"12.5","cost_usd":0.25}},
		{"name":"llm_call","event_id":"n4","timestamp":%[1]q,"properties":{"model":{"odd":true},"input_tokens":"many","latency_ms":[1],"status":500}},
		{"name":"llm_call","event_id":"n6","timestamp":%[1]q,"properties":{"call_id":"absurd","model":"gpt-4o-absurd","provider":"openai","input_tokens":9223372036854775807,"output_tokens":-5,"cached_tokens":true,"cost_usd":-1,"latency_ms":-1}},
		{"name":"level","event_id":"n5","properties":{"model":"a car's"}}]`, at(0), strings.Repeat("long ", 20_000))
	for range 2 { // a resend is the same row
		if status, a := post(t, r.URL+"/v1/events", native); status != 202 || a.Rejected != 0 {
			t.Fatalf("%d, %+v", status, a)
		}
	}
	attribute := func(key, value string) string { return fmt.Sprintf(`{"key":%q,"value":{%s}}`, key, value) }
	span := func(id, name string, attributes ...string) string {
		return fmt.Sprintf(
			`{"traceId":"5b8aa5a2d2c872e8321cf37308d69df2","spanId":%q,"name":%q,"startTimeUnixNano":"%d","endTimeUnixNano":"%d","status":{"code":2,"message":"cut off"},"attributes":[%s]}`,
			id, name, now.UnixNano(), now.Add(1500*time.Millisecond).UnixNano(), strings.Join(attributes, ","))
	}
	usage := []string{attribute("gen_ai.request.model", `"stringValue":"gpt-4o-mini"`),
		attribute("gen_ai.usage.prompt_tokens", `"intValue":"2000"`),
		attribute("gen_ai.usage.output_tokens", `"intValue":"1000"`)}
	otlp := `{"resourceSpans":[{"scopeSpans":[{"spans":[` + span("5fb397be34d26b51", "chat gpt-4o-mini", append(usage,
		attribute("gen_ai.operation.name", `"stringValue":"chat"`), attribute("gen_ai.system", `"stringValue":"openai"`),
		attribute("gen_ai.conversation.id", `"stringValue":"c-1"`), attribute("user.id", `"stringValue":"u-1"`),
		attribute("gen_ai.response.time_to_first_chunk", `"doubleValue":0.25`),
		attribute("gen_ai.input.messages", `"stringValue":"[{\"role\":\"user\"}]"`),
		attribute("gen_ai.response.finish_reasons", `"arrayValue":{"values":[{"stringValue":"length"}]}`))...) +
		`,` + span("5fb397be34d26b52", "invoke_agent",
		append(usage, attribute("gen_ai.operation.name", `"stringValue":"invoke_agent"`))...) + `]}]}]}`
	if status, a := post(t, r.URL+"/v1/traces", otlp, "Content-Type", "application/json"); status != 200 {
		t.Fatalf("%d, %+v", status, a)
	}
	langfuse := fmt.Sprintf(`{"batch":[
		{"id":"e-1","type":"trace-create","timestamp":%[1]q,"body":{"id":"t-1","userId":"u-2","sessionId":"c-3"}},
		{"id":"e-2","type":"generation-create","timestamp":%[1]q,"body":{"id":"g-1","traceId":"t-1","startTime":%[1]q,"model":"gpt-4o","input":[{"role":"user","content":"hi"}]}},
		{"id":"e-3","type":"generation-update","timestamp":%[1]q,"body":{"id":"g-1","traceId":"t-1","endTime":%[2]q,"completionStartTime":%[3]q,"output":"bye","usageDetails":{"input":600,"input_cached_tokens":400,"output":50,"total":1050}}},
		{"id":"e-4","type":"generation-create","timestamp":%[1]q,"body":{"id":"g-2","traceId":"t-1","model":"gpt-4o","sessionId":"own","level":"ERROR","statusMessage":"no","usage":{"promptTokens":10,"completionTokens":1}}}]}`, at(0), at(2000), at(500))
	if status, a := post(t, r.URL+"/api/public/ingestion", langfuse, "Authorization",
		"Basic "+base64.StdEncoding.EncodeToString([]byte(key+":x"))); status != 207 {
		t.Fatalf("%d, %+v", status, a)
	}
	s.rows("events FINAL", 12)
	s.rows("llm_calls", 8)
	for call, want := range map[string]string{
		"r-1": "model = 'small-2' AND provider = 'acme' AND conversation = 'c-1' AND user_id = 'u-1' AND input_tokens = " +
			"1000 AND cached_tokens = 400 AND output_tokens = 100 AND total_tokens = 1100 " +
			"AND round(cost_usd, 9) = 0.0012 AND latency_ms = 1000 AND first_token_ms = 90 AND status = 'ok' AND error = '' " +
			"AND finish_reason = 'stop' AND source = 'native' " +
			"AND JSONExtractString(input, 1, 'content') = 'hello' AND output = '' AND input_ref = '' AND time = " +
			"{at:DateTime64(3)}",
		"large": "input = '' AND JSONExtractUInt(input_ref, 'bytes') = 100000 AND output = '{\"a\":1}' AND output_ref = " +
			"'' AND cost_usd = 0.25 AND latency_ms = 12.5",
		"5fb397be34d26b51": "model = 'gpt-4o-mini' AND provider = 'openai' AND operation = 'chat' AND conversation = " +
			"'c-1' AND user_id = 'u-1' AND input_tokens = 2000 AND output_tokens = 1000 AND total_tokens = 3000 " +
			"AND round(cost_usd, 9) = 0.0009 AND latency_ms = 1500 AND first_token_ms = 250 AND status = 'error' AND error = " +
			"'cut off' AND finish_reason = 'length' AND input = '[{\"role\":\"user\"}]' AND source = 'otlp'",
		"g-1": "model = 'gpt-4o' AND provider = '' AND conversation = 'c-3' AND user_id = 'u-2' AND input_tokens = 1000 " +
			"AND cached_tokens = 400 AND output_tokens = 50 AND total_tokens = 1050 " +
			"AND round(cost_usd, 9) = 0.0025 AND latency_ms = 2000 AND first_token_ms = 500 AND status = 'ok' AND " +
			"JSONExtractString(input, 1, 'content') = 'hi' AND output = 'bye' AND source = 'langfuse' AND time = " +
			"{at:DateTime64(3)}",
		"g-2": "conversation = 'own' AND user_id = 'u-2' AND status = 'error' AND error = 'no' AND total_tokens = 11 " +
			"AND latency_ms IS NULL",
		"absurd": "input_tokens = 0 AND cached_tokens = 0 AND output_tokens = 0 AND total_tokens = 0 AND cost_usd IS NULL " +
			"AND latency_ms IS NULL",
	} {
		if n := one[uint64](s, "SELECT count() FROM llm_calls WHERE call_id = {call:String} AND "+want, named("call", call),
			named("at", now.Format("2006-01-02 15:04:05.000"))); n != 1 {
			t.Errorf("%s: %d rows where %s: %s", call, n, want,
				one[string](s, "SELECT toString(tuple(*)) FROM llm_calls WHERE call_id = {call:String}", named("call", call)))
		}
	}
	for _, want := range []string{
		"model = 'unheard-of' AND cost_usd IS NULL AND conversation = 'c-2' AND output = 'told' AND status = 'error' AND " +
			"error = 'refused' AND latency_ms IS NULL",
		"model = '' AND input_tokens = 0 AND cost_usd IS NULL AND latency_ms IS NULL AND status = 'error'",
	} {
		if n := one[uint64](s, "SELECT count() FROM llm_calls WHERE "+want); n != 1 {
			t.Errorf("%d rows where %s", n, want)
		}
	}
	text, err := os.ReadFile("../../docs/guides/llm.md")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	where := strings.NewReplacer("http://127.0.0.1:9100", s.minio.Endpoint(), "'KEY'", "'"+s.minio.AccessKey()+"'",
		"'SECRET'", "'"+s.minio.SecretKey()+"'", "project = 'chat' AND ", "", "'%hi%'", "'%e%'")
	s.must("rollups", "refresh")
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "SELECT ") {
			continue
		}
		asked++
		line = strings.TrimRight(line, ";\n")
		if strings.Contains(line, "cost_usd IS NULL") { // one that has a price, and only no tokens, is not asked for
			if got := one[string](s, "SELECT toString(arraySort(groupArray(model))) FROM ("+line+")"); got != "['unheard-of']" {
				t.Errorf("models without a price: %s", got)
			}
		}
		if n := one[uint64](s, "SELECT count() FROM ("+where.Replace(line)+")"); n == 0 {
			t.Errorf("no answer to %s", line)
		}
	}
	if asked < 15 {
		t.Errorf("docs/guides/llm.md has %d questions", asked)
	}
	for question, want := range map[string]string{
		"SELECT toString((count(), round(sum(cost_usd), 6))) FROM penstock.llm_calls WHERE conversation = 'c-1'": "(2,0.0021)",
		"SELECT toString(avg(status = 'error')) FROM penstock.llm_calls WHERE model = 'gpt-4o'":                  "0.5",
		"SELECT toString(sum(cached_tokens) / sum(input_tokens)) FROM penstock.llm_calls WHERE call_id = 'g-1' OR model = " +
			"'none'": "0.4",
	} {
		if got := one[string](s, question); got != want {
			t.Errorf("%s: %s, want %s", question, got, want)
		}
	}
	s.config(`llm: {prices: []}`)
	s.must("setup")
	if n := one[uint64](s, "SELECT countIf(cost_usd IS NOT NULL) FROM llm_calls"); n != 2 { // sent by the clients
		t.Errorf("%d calls have a cost without prices", n)
	}
}
