package litellm_test

import (
	"net/http/httptest"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/receivertest"
)

func TestEvents(t *testing.T) {
	const call = `{"id":"chatcmpl-1","trace_id":"t-1","call_type":"acompletion","startTime":1795514400.12,"endTime":1795514401.5,"model":"gpt-4o","prompt_tokens":100,"end_user":"u","metadata":{"user_api_key_user_id":"k"}}`
	want := intake.Said("llm_call", "u", "t-1", "", "2026-11-24T10:00:00.120Z",
		`{"id":"chatcmpl-1","trace_id":"t-1","call_type":"acompletion","startTime":1795514400.12,"endTime":1795514401.5,"model":"gpt-4o","prompt_tokens":100,"end_user":"u","metadata":{"user_api_key_user_id":"k"}}`, "")
	for _, c := range []struct {
		body, kind string
		want       []intake.Event
	}{
		{call, "application/json", []intake.Event{want}},
		{"[" + call + "]", "application/json", []intake.Event{want}},
		{call + "\n" + call + "\n", "application/json", []intake.Event{want, want}}, // LiteLLM sends NDJSON as JSON
		{call + "\n" + call, "application/x-ndjson", []intake.Event{want, want}},
		{`{"call_type":"call_mcp_tool","startTime":"2026-11-24T10:00:00.12Z","end_user":"","metadata":{"user_api_key_user_id":"k"}}`, "application/json",
			[]intake.Event{intake.Said("call_mcp_tool", "k", "", "", "2026-11-24T10:00:00.120Z", `{"call_type":"call_mcp_tool","startTime":"2026-11-24T10:00:00.12Z","end_user":"","metadata":{"user_api_key_user_id":"k"}}`, "")}},
	} {
		r, s := receivertest.Start(nil)
		w := httptest.NewRecorder()
		req := receivertest.WithKey(intake.Post("/litellm", c.body))
		req.Header.Set("Content-Type", c.kind)
		r.ServeHTTP(w, req)
		if w.Code != 202 || len(s.Events) != len(c.want) {
			t.Errorf("%s: got %d %s, %d events", c.body, w.Code, w.Body, len(s.Events))
			continue
		}
		for i, e := range s.Events {
			c.want[i].Compare(t, c.body, e)
			if i > 0 && e.ID != s.Events[0].ID {
				t.Errorf("%s: a resend has another id", c.body)
			}
		}
	}
}
