package receiver

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/penstock/penstock/receiver/protocol"
)

// FuzzDialects throws bodies at every path: each event is stored, or reported
// with its bytes, or the whole body is, and the answer says so. The path is
// picked by a number.
func FuzzDialects(f *testing.F) {
	router := must(newRouter(&Options{}))
	paths := slices.Sorted(slices.Values(router.Paths()))
	for i := range paths {
		for _, body := range []string{
			`{"event":"a","type":"track","event_type":"a","category":"a","name":"a","properties":{"a":1,"$lib":"l"},"body":{"userId":1},"event_properties":{"b":[]}}`,
			`{"batch":[{"type":"identify","id":"1","traits":{},"body":7,"event":"b","uuid":"x"},{"event":[]},7],"metadata":{"sdk_name":"x"}}`,
			`{"batch":[{"type":"track","event":"a","properties":{"$envelope":1,"distinct_id":{}}} {"x":1}]`,
			`{"events":[{"event_type":"a","session_id":-1,"insert_id":"","library":"/","event_properties":[1]},{}],"api_key":"x"}`,
			`[{"category":"a","sdk_version":" ","event_uuid":1,"client_ts":1e400},{"category":"a","client_ts":-1}]`,
			`data=eyJldmVudCI6ImEifQ==&compression=base64`, "data={\"event\":\"\\ud800\"}", "[\"\xff\",{\"event\":\"\xff\"}]",
			"{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\xb3}]}]}]}", "{\"metadata\":{\"sdk_name\":\"\xff\\", `{"batch":[{"id":"`, `{"batch":"`, `{"batch":7}`, ``, `[`,
			`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b000000000000000000000000000001","spanId":"5b00000000000001","attributes":[{"key":"a","value":{"arrayValue":{"values":[{"doubleValue":1}]}}}]},{},7]}]}]}`,
			`{"resourceLogs":[{"resource":{"attributes":[{"key":"a"}]},"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a"}},{"traceId":"x"}]}]}]}`,
			`{"batch":[{"type":"a","body":{"x":1},"type":"b"},{"type":"a","body":{"x":1,"x":2}}],"batch":[]}`,
			`{"b\u0061tch":[{"type":"track","event":"a"}],"events":[{"event_type":"a"}],"event":"a"}`,
		} {
			f.Add(i, []byte(body))
		}
	}
	r, s := newTest(func(o *Options) {
		withSecret(o)
		o.MaxEvents, o.MaxEvent, o.MaxDepth, o.MaxBody = 50, 2000, 20, 10_000
	})
	lists := map[string][]string{}
	for _, path := range paths {
		lists[path] = listsAt(r, s, path)
	}
	f.Fuzz(func(t *testing.T, at int, body []byte) {
		path := paths[uint(at)%uint(len(paths))]
		d := router.Find(path, nil)
		if d.Protocol == nil || !slices.Contains(d.Allowed(), "POST") {
			return
		}
		want := listed(lists[path], body)
		path = strings.ReplaceAll(path, "{}", key)
		req := withKey(post(path, string(body)))
		if _, signs := d.Protocol.(protocol.Verifier); signs {
			req.Header.Set("Authorization", signed(string(body), secret))
		}
		s.events, s.failures, s.dropped = nil, nil, nil
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if r.admission.Memory() != 0 || len(s.dropped) != 0 {
			t.Fatalf("%s %q: %d bytes of memory, dropped %v", path, body, r.admission.Memory(), s.dropped)
		}
		if w.Code < 400 && len(s.events)+len(s.failures) < want {
			t.Fatalf("%s %q: %d events and %d failures of %d", path, body, len(s.events), len(s.failures), want)
		}
		refused := w.Code >= 400 && len(s.failures) == 1 && s.failures[0].Index < 0
		if refused && (len(s.events) != 0 || string(s.failures[0].Raw) != string(body) && !strings.Contains(s.failures[0].Message, "not kept")) {
			t.Fatalf("%s %q: %d, %d events, %+v", path, body, w.Code, len(s.events), s.failures)
		}
		if w.Code >= 400 && (w.Code >= 500 || len(s.failures) == 0 || len(s.events) != 0) {
			t.Fatalf("%s %q: %d %s, %d events, %d failures", path, body, w.Code, w.Body, len(s.events), len(s.failures))
		}
		last := -1
		for _, f := range s.failures {
			if !refused && f.Index <= last || f.Code == "" || !utf8.ValidString(f.Message) {
				t.Fatalf("%s %q: %+v behind %d", path, body, f, last)
			}
			last = f.Index
		}
		for _, e := range s.events {
			check(t, &e, nil)
			if _, _, err := newRequest(r).inner.Object(e.Properties); err != nil {
				t.Fatalf("%s %q: properties %s: %v", path, body, e.Properties, err)
			}
			if !json.Valid(e.Context) || !utf8.Valid(e.Context) || !utf8.Valid(e.UserID) || !utf8.Valid(e.SessionID) {
				t.Fatalf("%s %q: %+v", path, body, e)
			}
		}
		if d.Query || d.Name == "otlp" || w.Header().Get("Content-Type") != "application/json" || w.Body.Len() == 0 { // they have their own words
			return
		}
		var a struct{ Accepted, Rejected *int }
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || !utf8.Valid(w.Body.Bytes()) {
			t.Fatalf("%s %q: answer %s: %v", path, body, w.Body, err)
		}
		if a.Accepted == nil || *a.Accepted != len(s.events) || !refused && *a.Rejected != len(s.failures) {
			t.Fatalf("%s %q: %s, %d events, %d failures", path, body, w.Body, len(s.events), len(s.failures))
		}
	})
}

// listsAt finds the members of a body whose elements are events, by sending lists of two bad ones.
func listsAt(r *Receiver, s *sink, path string) (names []string) {
	for _, name := range []string{"batch", "data", "events", "messages", "records"} {
		s.failures = nil
		r.ServeHTTP(httptest.NewRecorder(), withKey(post(path, `{"`+name+`":[1,2]}`)))
		if len(s.failures) == 2 {
			names = append(names, name)
		}
	}
	return names
}

// listed is how many events these lists of a body have, as encoding/json reads it; 0 where it cannot.
func listed(lists []string, body []byte) (n int) {
	dec := json.NewDecoder(bytes.NewReader(protocol.Whole(body)))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') || !json.Valid(protocol.Whole(body)) {
		return 0
	}
	for dec.More() {
		name, _ := dec.Token()
		var elements []json.RawMessage
		var value json.RawMessage
		dec.Decode(&value)
		json.Unmarshal(value, &elements)
		if of, _ := name.(string); slices.Contains(lists, of) {
			n += len(elements)
		}
	}
	return n
}

// A list of events that is there twice, or beside another one, loses nothing: all
// of it is refused.
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
			r, s := newTest(nil)
			w := httptest.NewRecorder()
			r.ServeHTTP(w, withKey(post(path, c.body)))
			if c.code == "" {
				if w.Code >= 300 || names(s.events) != "a" {
					t.Errorf("%s %s: got %d %s", path, c.body, w.Code, w.Body)
				}
			} else if w.Code != 400 || len(s.events) != 0 || len(s.failures) != 1 || s.failures[0].Code != c.code || s.failures[0].Index >= 0 || string(s.failures[0].Raw) != c.body || string(s.failures[0].Project) != "game" {
				t.Errorf("%s %s: got %d %s, %d events, failures %+v", path, c.body, w.Code, w.Body, len(s.events), s.failures)
			}
		}
	}
}

// Keys are found by escaped names too, and what is said of the client's library.
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
		r, s := newTest(nil)
		if code, a := send(r, path, body); code != 200 || names(s.events) != "a" || strings.Contains(body, "ssionId") && string(s.events[0].SessionID) != "s" {
			t.Errorf("%s %s: got %d %v", path, body, code, a)
		}
	}
	r, s := newTest(nil)
	send(r, "/api/public/ingestion", `{"m\u0065tadata":{"sdk\u005fname":"x"},"batch":[{"type":"a","body":{"us\u0065rId":"u"}}]}`, "X-API-Key", key)
	if len(s.events) != 1 || string(s.events[0].UserID) != "u" || !strings.Contains(string(s.events[0].Context), `"sdk":{"name":"x"`) {
		t.Errorf("%+v", s.events)
	}
}

func TestMissingNameSaysWhatIsMissing(t *testing.T) {
	r, s := newTest(withSecret)
	for _, c := range []struct{ path, body, member string }{
		{"/v1/events", `{"a":1}`, "name"},
		{"/v1/track", `{"userId":"u"}`, "event"},
		{"/v1/batch", `{"batch":[{"type":"track"}]}`, "event"},
		{"/i/v0/e", `{"distinct_id":"u"}`, "event"},
		{"/batch", `{"batch":[{"distinct_id":"u"}]}`, "event"},
		{"/2/httpapi", `{"events":[{"user_id":"u"}]}`, "event_type"},
		{"/batch", `{"events":[{"user_id":"u"}]}`, "event_type"},
		{"/v2/" + key + "/events", `[{"client_ts":1}]`, "category"},
		{"/api/public/ingestion", `{"batch":[{"id":"1"}]}`, "type"},
	} {
		s.failures = nil
		req := withKey(post(c.path, c.body))
		if strings.HasPrefix(c.path, "/v2/") {
			req.Header.Set("Authorization", signed(c.body, secret))
		}
		r.ServeHTTP(httptest.NewRecorder(), req)
		if len(s.failures) != 1 || s.failures[0].Code != "missing_name" || !strings.Contains(s.failures[0].Message, `a member "`+c.member+`"`) {
			t.Errorf("%s %s: %+v", c.path, c.body, s.failures)
		}
	}
}
