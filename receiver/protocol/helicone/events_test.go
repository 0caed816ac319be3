package helicone_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/protocol"
	"github.com/penstock/penstock/receiver/receivertest"
)

func TestEvents(t *testing.T) {
	const request = `"providerRequest":{"url":"custom-model-nopath","json":{"model":"m"},"meta":{"Helicone-User-Id":"of-meta"}}`
	const timing = `"timing":{"startTime":{"seconds":1795514400,"milliseconds":120},"endTime":{"seconds":1795514401,"milliseconds":500.5},"timeToFirstToken":90}`
	for _, c := range []struct {
		path, body string
		head       []string
		want       intake.Event
	}{
		{"/custom/v1/log", `{` + request + `,"providerResponse":{"status":200},` + timing + `}`, nil,
			intake.Said("llm_call", "of-meta", "", "", "2026-11-24T10:00:00.120Z", `{`+request+`,"providerResponse":{"status":200},"latency_ms":1380,`+timing+`}`, "")},
		{"/oai/v1/log", `{` + request + `,"timing":{"startTime":{"seconds":"x"}}}`,
			[]string{"Helicone-User-Id", "u", "Helicone-Session-Id", "s", "Helicone-Request-Id", intake.UUID},
			intake.Said("llm_call", "u", "s", intake.UUID, "", `{`+request+`,"timing":{"startTime":{"seconds":"x"}}}`, "")},
		{"/custom/v1/log", `{"providerRequest":{"json":{"_type":"tool"}},"timing":null}`, nil,
			intake.Said("tool", "", "", "", "", `{"providerRequest":{"json":{"_type":"tool"}},"timing":null}`, "")},
		// A client's own latency is kept.
		{"/custom/v1/log", `{"latency_ms":5,` + timing + `}`, nil, intake.Said("llm_call", "", "", "", "",
			`{"latency_ms":1380,`+timing+`,"$envelope":{"latency_ms":5}}`, "")},
		{"/custom/v1/log", `{"latency_ms":5,"timing":{"startTime":{"seconds":2},"endTime":{"seconds":1}}}`, nil,
			intake.Said("llm_call", "", "", "", "", `{"timing":{"startTime":{"seconds":2},"endTime":{"seconds":1}},"latency_ms":5}`,
				"")},
		{"/anthropic/v1/log", `{"timing":{"startTime":{"seconds":-1},"endTime":{"seconds":1e99}}}`, nil,
			intake.Said("llm_call", "", "", "", "", `{"timing":{"startTime":{"seconds":-1},"endTime":{"seconds":1e99}}}`, "")},
		// Invalid milliseconds count as 0.
		{"/googleapis/v1/log", `{"timing":{"startTime":{"seconds":1795514400,"milliseconds":"x"}}}`, nil,
			intake.Said("llm_call", "", "", "", "2026-11-24T10:00:00.000Z",
				`{"timing":{"startTime":{"seconds":1795514400,"milliseconds":"x"}}}`, "")},
	} {
		r, s := receivertest.Start(nil)
		w := httptest.NewRecorder()
		req := receivertest.WithKey(intake.Post(c.path, c.body))
		for i := 0; i < len(c.head); i += 2 {
			req.Header.Set(c.head[i], c.head[i+1])
		}
		r.ServeHTTP(w, req)
		if w.Code != 202 {
			t.Errorf("%s: got %d %s", c.body, w.Code, w.Body)
		}
		c.want.Check(t, c.body, s)
	}
	for _, user := range []string{strings.Repeat("u", protocol.MaxID+1), strings.Repeat("u\xff", protocol.MaxID/2)} {
		r, s := receivertest.Start(nil)
		w := intake.Do(r, receivertest.WithKey(intake.Post("/custom/v1/log", `{`+request+`}`, "Helicone-User-Id", user)))
		if w.Code != 400 || s.Codes() != "-1:field_too_long" && s.Codes() != "0:field_too_long" {
			t.Errorf("a long user, %.10q…: got %d %s", user, w.Code, w.Body)
		}
	}
}
