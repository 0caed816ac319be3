package receiver

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/receiver/protocol"
)

func TestLiteLLM(t *testing.T) {
	const call = `{"id":"chatcmpl-1","trace_id":"t-1","call_type":"acompletion","startTime":1795514400.12,"endTime":1795514401.5,"model":"gpt-4o","prompt_tokens":100,"end_user":"u","metadata":{"user_api_key_user_id":"k"}}`
	want := said{"llm_call", "u", "t-1", "", "2026-11-24T10:00:00.120Z",
		`{"id":"chatcmpl-1","trace_id":"t-1","call_type":"acompletion","startTime":1795514400.12,"endTime":1795514401.5,"model":"gpt-4o","prompt_tokens":100,"end_user":"u","metadata":{"user_api_key_user_id":"k"}}`, ""}
	for _, c := range []struct {
		body, kind string
		want       []said
	}{
		{call, "application/json", []said{want}},
		{"[" + call + "]", "application/json", []said{want}},
		{call + "\n" + call + "\n", "application/json", []said{want, want}}, // it sends NDJSON with the type of JSON
		{call + "\n" + call, "application/x-ndjson", []said{want, want}},
		{`{"call_type":"call_mcp_tool","startTime":"2026-11-24T10:00:00.12Z","end_user":"","metadata":{"user_api_key_user_id":"k"}}`, "application/json",
			[]said{{"call_mcp_tool", "k", "", "", "2026-11-24T10:00:00.120Z", `{"call_type":"call_mcp_tool","startTime":"2026-11-24T10:00:00.12Z","end_user":"","metadata":{"user_api_key_user_id":"k"}}`, ""}}},
	} {
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		req := withKey(post("/litellm", c.body))
		req.Header.Set("Content-Type", c.kind)
		r.ServeHTTP(w, req)
		if w.Code != 202 || len(s.events) != len(c.want) {
			t.Errorf("%s: got %d %s, %d events", c.body, w.Code, w.Body, len(s.events))
			continue
		}
		for i, e := range s.events {
			c.want[i].check(t, c.body, &sink{events: s.events[i : i+1]})
			if i > 0 && e.ID != s.events[0].ID {
				t.Errorf("%s: a resend has another id", c.body)
			}
		}
	}
}

func TestHelicone(t *testing.T) {
	const request = `"providerRequest":{"url":"custom-model-nopath","json":{"model":"m"},"meta":{"Helicone-User-Id":"of-meta"}}`
	const timing = `"timing":{"startTime":{"seconds":1795514400,"milliseconds":120},"endTime":{"seconds":1795514401,"milliseconds":500.5},"timeToFirstToken":90}`
	for _, c := range []struct {
		path, body string
		head       []string
		want       said
	}{
		{"/custom/v1/log", `{` + request + `,"providerResponse":{"status":200},` + timing + `}`, nil,
			said{"llm_call", "of-meta", "", "", "2026-11-24T10:00:00.120Z", `{` + request + `,"providerResponse":{"status":200},"latency_ms":1380,` + timing + `}`, ""}},
		{"/oai/v1/log", `{` + request + `,"timing":{"startTime":{"seconds":"x"}}}`,
			[]string{"Helicone-User-Id", "u", "Helicone-Session-Id", "s", "Helicone-Request-Id", someUUID},
			said{"llm_call", "u", "s", someUUID, "", `{` + request + `,"timing":{"startTime":{"seconds":"x"}}}`, ""}},
		{"/custom/v1/log", `{"providerRequest":{"json":{"_type":"tool"}},"timing":null}`, nil,
			said{"tool", "", "", "", "", `{"providerRequest":{"json":{"_type":"tool"}},"timing":null}`, ""}},
	} {
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		req := withKey(post(c.path, c.body))
		for i := 0; i < len(c.head); i += 2 {
			req.Header.Set(c.head[i], c.head[i+1])
		}
		r.ServeHTTP(w, req)
		if w.Code != 202 {
			t.Errorf("%s: got %d %s", c.body, w.Code, w.Body)
		}
		c.want.check(t, c.body, s)
	}
	r, s := newTest(nil)
	w := httptest.NewRecorder()
	req := withKey(post("/custom/v1/log", `{`+request+`}`))
	req.Header.Set("Helicone-User-Id", strings.Repeat("u", protocol.MaxID+1))
	r.ServeHTTP(w, req)
	if w.Code != 400 || len(s.failures) != 1 || s.failures[0].Code != "field_too_long" {
		t.Errorf("a long user: got %d %s", w.Code, w.Body)
	}
}

// Langfuse's SDKs and OpenRouter's webhook send OTLP, by other paths and methods.
func TestTracesOfOthers(t *testing.T) {
	const span = `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060701","name":"gen","attributes":[
		{"key":"langfuse.observation.type","value":{"stringValue":"generation"}},{"key":"langfuse.observation.model.name","value":{"stringValue":"m"}},
		{"key":"%s","value":{"stringValue":"u"}},{"key":"%s","value":{"stringValue":"s"}}]}]}]}]}`
	for _, c := range []struct{ method, path, user, session string }{
		{"POST", "/api/public/otel/v1/traces", "user.id", "session.id"},
		{"POST", "/api/public/otel/v1/traces", "langfuse.user.id", "langfuse.session.id"},
		{"PUT", "/v1/traces", "ai.telemetry.metadata.userId", "ai.telemetry.metadata.sessionId"},
	} {
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		req := post(c.path, fmt.Sprintf(span, c.user, c.session))
		req.Method = c.method
		req.SetBasicAuth(key, "secret")
		r.ServeHTTP(w, req)
		if w.Code != 200 || len(s.events) != 1 {
			t.Fatalf("%+v: got %d %s", c, w.Code, w.Body)
		}
		e := s.events[0]
		if string(e.UserID) != "u" || string(e.SessionID) != "s" || !strings.Contains(string(e.Properties), `"gen_ai.request.model":"m"`) {
			t.Errorf("%+v: user %q, session %q, %s", c, e.UserID, e.SessionID, e.Properties)
		}
	}
	r, s := newTest(nil) // OpenRouter tests a connection before it is saved
	w := httptest.NewRecorder()
	req := withKey(post("/v1/traces", `{"resourceSpans":[]}`))
	req.Header.Set("X-Test-Connection", "true")
	r.ServeHTTP(w, req)
	if w.Code != 200 || len(s.events)+len(s.failures) != 0 {
		t.Errorf("a test of the connection: got %d %s", w.Code, w.Body)
	}
}
