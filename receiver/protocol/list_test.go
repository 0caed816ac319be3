package protocol_test

import (
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/receivertest"
)

const key = receivertest.Key

// If a body has two lists of events, it is rejected as a whole, so nothing is lost.
func TestTwoLists(t *testing.T) {
	const track, posthog, amplitude, langfuse = `{"type":"track","event":"a"}`, `{"event":"a"}`, `{"event_type":"a"}`, `{"type":"a"}`
	for _, c := range []struct{ paths, body, code string }{
		{"/v1/batch /v1/import", `{"batch":[` + track + `],"batch":[]}`, "duplicate_key"},
		{"/v1/batch", `{"batch":[],"b\u0061tch":[` + track + `]}`, "duplicate_key"},
		{"/v1/batch", `{"batch":[` + track + `],"batch":null}`, "duplicate_key"},
		{"/v1/batch", `{"writeKey":"x","batch":[` + track + `],"write\u004bey":"y"}`, "duplicate_key"},
		{"/batch /e /capture", `{"batch":[` + posthog + `],"batch":[` + posthog + `]}`, "duplicate_key"},
		{"/batch /e", `{"batch":[` + posthog + `],"events":[` + amplitude + `]}`, "duplicate_key"},
		{"/batch /e", `{"event":"b","batch":[` + posthog + `]}`, "duplicate_key"},
		{"/batch /e", `{"token":"b","batch":[` + posthog + `],"token":"a"}`, "duplicate_key"},
		{"/2/httpapi /batch", `{"events":[` + amplitude + `],"events":[]}`, "duplicate_key"},
		{"/2/httpapi /batch", `{"events":[],"\u0065vents":[` + amplitude + `]}`, "duplicate_key"},
		{"/2/httpapi /batch", `{"events":[` + amplitude + `],"api_key":1,"api_key":2}`, "duplicate_key"},
		{"/api/public/ingestion", `{"batch":[` + langfuse + `],"batch":[]}`, "duplicate_key"},
		{"/api/public/ingestion", `{"metadata":{},"batch":[` + langfuse + `],"metadata":{}}`, "duplicate_key"},

		{"/v1/batch", `{"b\u0061tch":[` + track + `],"events":null,"sentAt":1,"sentAt":2}`, ""},
		{"/batch /e", `{"b\u0061tch":[` + posthog + `],"event":null}`, ""},
		{"/batch /e", `{"events":null,"batch":[` + posthog + `]}`, ""},
		{"/2/httpapi /batch", `{"\u0065vents":[` + amplitude + `]}`, ""},
		{"/api/public/ingestion", `{"batch\u0000":[],"\u0062atch":[` + langfuse + `]}`, ""},
	} {
		for _, path := range strings.Fields(c.paths) {
			r, s := receivertest.Start(nil)
			w := intake.Do(r, receivertest.WithKey(intake.Post(path, c.body)))
			if c.code == "" {
				if w.Code >= 300 || s.Names() != "a" {
					t.Errorf("%s %s: got %d %s", path, c.body, w.Code, w.Body)
				}
			} else if w.Code != 400 || len(s.Events) != 0 || len(s.Failures) != 1 || s.Failures[0].Code != c.code || s.Failures[0].Index >= 0 || string(s.Failures[0].Raw) != c.body || string(s.Failures[0].Project) != "game" {
				t.Errorf("%s %s: got %d %s, %d events, failures %+v", path, c.body, w.Code, w.Body, len(s.Events), s.Failures)
			}
		}
	}
}

// Keys and the client's library are also found under escaped names.
func TestEscapedNames(t *testing.T) {
	for path, body := range map[string]string{
		"/v1/batch":   `{"write\u004bey":"` + key + `","batch":[{"type":"track","event":"a"}]}`,
		"/2/httpapi":  `{"api\u005fkey":"` + key + `","events":[{"event_type":"a"}]}`,
		"/batch":      `{"\u0061pi_key":"` + key + `","batch":[{"event":"a"}]}`,
		"/capture":    `{"tok\u0065n":"` + key + `","event":"a"}`,
		"/i/v0/e":     `[{"event":"a","prop\u0065rties":{"t\u006fken":"` + key + `"}}]`,
		"/v1/track":   `{"writ\u0065Key":"` + key + `","event":"a"}`,
		"/v1/batch/?": `{"writeKey":"` + key + `","batch":[{"type":"track","event":"a","context":{"s\u0065ssionId":"s"}}]}`,
	} {
		r, s := receivertest.Start(nil)
		if code, a := receivertest.Send(r, path, body); code != 200 || s.Names() != "a" || strings.Contains(body, "ssionId") && string(s.Events[0].SessionID) != "s" {
			t.Errorf("%s %s: got %d %v", path, body, code, a)
		}
	}
	r, s := receivertest.Start(nil)
	receivertest.Send(r, "/api/public/ingestion", `{"m\u0065tadata":{"sdk\u005fname":"x"},"batch":[{"type":"a","body":{"us\u0065rId":"u"}}]}`, "X-API-Key", key)
	if len(s.Events) != 1 || string(s.Events[0].UserID) != "u" || !strings.Contains(string(s.Events[0].Context), `"sdk":{"name":"x"`) {
		t.Errorf("%+v", s.Events)
	}
}
