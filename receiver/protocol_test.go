package receiver

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
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
		s.Events, s.Failures, s.Dropped = nil, nil, nil
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if r.admission.Memory() != 0 || len(s.Dropped) != 0 {
			t.Fatalf("%s %q: %d bytes of memory, dropped %v", path, body, r.admission.Memory(), s.Dropped)
		}
		if w.Code < 400 && len(s.Events)+len(s.Failures) < want {
			t.Fatalf("%s %q: %d events and %d failures of %d", path, body, len(s.Events), len(s.Failures), want)
		}
		refused := w.Code >= 400 && len(s.Failures) == 1 && s.Failures[0].Index < 0
		if refused && (len(s.Events) != 0 || string(s.Failures[0].Raw) != string(body) && !strings.Contains(s.Failures[0].Message, "not kept")) {
			t.Fatalf("%s %q: %d, %d events, %+v", path, body, w.Code, len(s.Events), s.Failures)
		}
		if w.Code >= 400 && (w.Code >= 500 || len(s.Failures) == 0 || len(s.Events) != 0) {
			t.Fatalf("%s %q: %d %s, %d events, %d failures", path, body, w.Code, w.Body, len(s.Events), len(s.Failures))
		}
		last := -1
		for _, f := range s.Failures {
			if !refused && f.Index <= last || f.Code == "" || !utf8.ValidString(f.Message) {
				t.Fatalf("%s %q: %+v behind %d", path, body, f, last)
			}
			last = f.Index
		}
		for _, e := range s.Events {
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
		if a.Accepted == nil || *a.Accepted != len(s.Events) || !refused && *a.Rejected != len(s.Failures) {
			t.Fatalf("%s %q: %s, %d events, %d failures", path, body, w.Body, len(s.Events), len(s.Failures))
		}
	})
}

// listsAt finds the members of a body whose elements are events, by sending lists of two bad ones.
func listsAt(r *Receiver, s *sink, path string) (names []string) {
	for _, name := range []string{"batch", "data", "events", "messages", "records"} {
		s.Failures = nil
		r.ServeHTTP(httptest.NewRecorder(), withKey(post(path, `{"`+name+`":[1,2]}`)))
		if len(s.Failures) == 2 {
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
		s.Failures = nil
		req := withKey(post(c.path, c.body))
		if strings.HasPrefix(c.path, "/v2/") {
			req.Header.Set("Authorization", signed(c.body, secret))
		}
		r.ServeHTTP(httptest.NewRecorder(), req)
		if len(s.Failures) != 1 || s.Failures[0].Code != "missing_name" || !strings.Contains(s.Failures[0].Message, `a member "`+c.member+`"`) {
			t.Errorf("%s %s: %+v", c.path, c.body, s.Failures)
		}
	}
}

// A protocol's failure is redriven through the same route.
func TestRedriveDialect(t *testing.T) {
	for _, d := range []Redrive{
		{Body: []byte(`{"type":"track","event":"a"}`), Event: true, Path: "/v1/batch"},
		{Body: []byte(`{"batch":[{"type":"track","event":"a"}]}`), Path: "/v1/batch/"},
		{Body: []byte(`{"event":"a"}`), Path: "/v1/track"},
		{Body: []byte(`{"event":"a"}`), Event: true, Path: "/batch"},
		{Body: []byte(`{"batch":[{"event":"a"}]}`), Path: "/batch/"},
		{Body: []byte(`data=` + base64.StdEncoding.EncodeToString([]byte(`{"event":"a"}`))),
			ContentType: "application/x-www-form-urlencoded", Path: "/e/"},
		{Body: []byte(`{"event_type":"a"}`), Event: true, Path: "/batch"},
		{Body: []byte(`{"events":[{"event_type":"a"}]}`), Path: "/batch"},
		{Body: []byte(`{"event_type":"a"}`), Event: true, Path: "/2/httpapi"},
		{Body: []byte(`[{"category":"a"}]`), Path: "/v2/{}/events"},
		{Body: []byte(`{"category":"a"}`), Event: true, Path: "/v2/{}/events"},
		{Body: []byte(`{"batch":[{"type":"a"}]}`), Path: "/api/public/ingestion"},
		{Body: []byte(`{"type":"a"}`), Event: true, Path: "/api/public/ingestion"},
		{Body: []byte(`{"name":"a"}`), Path: "/v1/events"},
		{Body: []byte(`{"name":"a"}`)},
	} {
		d.ID, d.Time, d.Project = pipeline.NewUUIDv7(1), 1, "game"
		r, s := newTest(nil)
		out, err := r.Redrive(context.Background(), d)
		if err != nil || out.Accepted != 1 || s.Names() != "a" || string(s.Events[0].Project) != "game" {
			t.Errorf("%s: %+v %v %s", d.Body, out, err, s.Names())
		}
	}
}

func TestPreflightOfClients(t *testing.T) {
	r, _ := newTest(func(o *Options) { o.Origins = []string{"*"} })
	for _, path := range []string{"/v1/events", "/v1/traces", "/v1/pixel.gif"} {
		req := httptest.NewRequest("OPTIONS", path, nil)
		req.Header.Set("Origin", "https://a.example")
		req.Header.Set("Access-Control-Request-Headers", "authorization,ce-id,content-type")
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if got := w.Header().Get("Access-Control-Allow-Headers"); w.Code != 204 || got != "authorization,ce-id,content-type" {
			t.Errorf("%s: %d %q", path, w.Code, got)
		}
	}
}

// Undeclared gzip and its content go to disk like other large bodies.
func TestSniffedIsSpooled(t *testing.T) {
	noise := make([]byte, 2<<20)
	rand.NewChaCha8([32]byte{}).Read(noise)
	value := base64.StdEncoding.EncodeToString(noise)
	for _, name := range []string{key, "wrong"} {
		r, s := newTest(func(o *Options) {
			o.SpoolDir, o.MaxSpool, o.MaxMemory, o.MaxEvent, o.BlobThreshold, o.AnonymousRate = t.TempDir(), 64<<20, 1<<20,
				8<<20, 64<<10, 64<<20
		})
		body := zipped(`{"api_key":"` + name + `","event":"a","properties":{"value":"` + value + `"}}`)
		code, a := send(r, "/e/", body, "Content-Type", "text/plain")
		if r.admission.Memory() != 0 || r.admission.Spooled() != 0 {
			t.Errorf("%s: %d bytes in memory, %d on disk", name, r.admission.Memory(), r.admission.Spooled())
		}
		if name == key && (code != 200 || len(s.Blobs) != 1 || string(s.Blobs[0].Data) != value) {
			t.Errorf("got %d %v, %d blobs", code, a, len(s.Blobs))
		}
		if name != key &&
			(code != 401 || len(s.Failures) != 1 || string(s.Failures[0].Raw) != body ||
				s.Failures[0].ContentEncoding != "gzip") {
			t.Errorf("got %d %v, %d failures", code, a, len(s.Failures))
		}
	}
}

// FuzzQueries throws queries at the routes that take events from one: each is an
// event, or is kept.
func FuzzQueries(f *testing.F) {
	routes := []string{"/pixel/v1/track", "/pixel/v1/page", "/v1/pixel/track", "/v1/pixel/page", "/e/", "/s/",
		"/v1/pixel.gif"}
	for at := range routes {
		for _, query := range []string{"event=a&name=a&properties.a.b=1&properties.a=2",
			"event=a&properties=%7B%22a%22:1%7D&context.=1&.=2&a..b=3", "data=eyJldmVudCI6ImEifQ", "data=%25%37B&_=1",
			"data=H4sIAAAAAAAA&event=%ff", "data=%22%7B%7D%22", "=&&=a&data", ";"} {
			f.Add(at, query)
		}
	}
	f.Fuzz(func(t *testing.T, at int, query string) {
		target := &url.URL{Path: routes[uint(at)%uint(len(routes))], RawQuery: query}
		req := withKey(httptest.NewRequest("GET", "/", nil))
		req.URL = target
		r, s := newTest(nil)
		w := intake.Do(r, req)
		if r.admission.Memory() != 0 || w.Code >= 500 || w.Code == 200 && len(s.Failures) > 0 && len(s.Events) == 0 ||
			w.Code >= 400 && len(s.Failures) == 0 {
			t.Fatalf("%s: got %d %s, %d events, %d failures, %d bytes in memory", target, w.Code, w.Body, len(s.Events),
				len(s.Failures), r.admission.Memory())
		}
		for _, e := range s.Events {
			if !json.Valid(e.Properties) {
				t.Fatalf("%s: properties %s", target, e.Properties)
			}
		}
	})
}
