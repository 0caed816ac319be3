package batch_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/receivertest"
)

// The body decides the product, and the answer is in its format. Until the body is read, the answer is Amplitude's.
func TestWhose(t *testing.T) {
	const posthog, amplitude = "status", "code"
	for _, c := range []struct {
		body, whose, name string
		status            int
	}{
		{`{"api_key":"KEY","batch":[{"event":"a"}]}`, posthog, "a", 200},
		{`{"api_key":"KEY","events":[{"event_type":"a"}]}`, amplitude, "a", 200},
		{`{"api_key":"KEY","events":null,"batch":[{"event":"a"}]}`, posthog, "a", 200},
		{`{"api_key":"KEY","batch":null,"events":[{"event_type":"a"}]}`, amplitude, "a", 200},
		{`{"api_key":"KEY","events":[]}`, amplitude, "", 200},
		{`{"api_key":"KEY","batch":[]}`, posthog, "", 200},
		{`{"api_key":"KEY","events":{}}`, amplitude, "", 400},
		{`{"api_key":"KEY","event":"a"}`, posthog, "a", 200},
		{`[{"event":"a","api_key":"KEY"}]`, posthog, "a", 200},
		{`data=` + base64.StdEncoding.EncodeToString([]byte(`{"event":"a","api_key":"`+receivertest.Key+`"}`)), posthog,
			"a", 200},
		{intake.Gzip(`{"api_key":"` + receivertest.Key + `","batch":[{"event":"a"}]}`), posthog, "a", 200},
		{intake.Gzip(`{"api_key":"` + receivertest.Key + `","events":[{"event_type":"a"}]}`), amplitude, "a", 200},
		{`{"batch":[{"event":"a"}]}`, posthog, "", 401},
		{`{"events":[{"event_type":"a"}]}`, amplitude, "", 401},
		{`{"api_key":"KEY"`, posthog, "", 400},
		{``, posthog, "", 401},
	} {
		r, s := receivertest.Start(nil)
		status, answer := receivertest.Send(r, "/batch", withKey(c.body))
		if status != c.status || answer[c.whose] == nil || s.Names() != c.name {
			t.Errorf("%.60q: got %d %v, events %q, want %d, %q and %q", c.body, status, answer, s.Names(), c.status, c.whose,
				c.name)
		}
		// A wrong key in the head is rejected before the body is read.
		r, _ = receivertest.Start(nil)
		if status, answer := receivertest.Send(r, "/batch", c.body, "X-API-Key", "wrong"); status != 401 ||
			answer[amplitude] != 401.0 {
			t.Errorf("%.60q with a wrong key: got %d %v", c.body, status, answer)
		}
		if c.status == 400 && (len(s.Failures) != 1 || string(s.Failures[0].Raw) != withKey(c.body)) {
			t.Errorf("%.60q: failure records %+v", c.body, s.Failures)
		}
	}
}

// withKey puts the key into a body.
func withKey(body string) string { return strings.ReplaceAll(body, "KEY", receivertest.Key) }

// The key may also be in the head, for both products' clients.
func TestKeyInTheHead(t *testing.T) {
	for body, want := range map[string]string{`{"batch":[{"event":"a"}]}`: "a", `{"events":[{"event_type":"b"}]}`: "b"} {
		for _, target := range []string{"/batch?api_key=" + receivertest.Key, "/batch/?token=" + receivertest.Key,
			"/batch?key=" + receivertest.Key} {
			r, s := receivertest.Start(nil)
			if status, answer := receivertest.Send(r, target, body); status != 200 || s.Names() != want {
				t.Errorf("%s %s: got %d %v, events %q", target, body, status, answer, s.Names())
			}
		}
	}
}
