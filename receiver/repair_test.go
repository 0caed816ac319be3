package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/jsonscan"
)

// repaired is how many events were counted as repaired.
func repaired(t *testing.T, r *Receiver) int {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(r.metrics.repaired)
	families, err := reg.Gather()
	if err != nil || len(families) > 1 || len(families) == 1 && families[0].GetName() != "penstock_repaired_events_total" {
		t.Fatalf("got %v, %v", families, err)
	}
	n := 0
	for _, f := range families {
		for _, m := range f.Metric {
			if l := m.Label[0]; l.GetName() == "reason" && l.GetValue() == "lone_surrogate" {
				n += int(m.Counter.GetValue())
			}
		}
	}
	return n
}

func TestLoneSurrogates(t *testing.T) {
	for _, c := range []struct{ name, event, column, props string }{
		{"in a value", `{"name":"ls","v":"cut \ud83d"}`, "ls", `{"v":"cut \ufffd"}`},
		{"in the properties alone", `{"name":"ls","properties":{"v":"cut \ud83d","w":"\ud83d\ude00"}}`, "ls", `{"v":"cut \ufffd","w":"\ud83d\ude00"}`},
		{"in a nested key", `{"name":"ls","properties":{"a":{"\udc00k":[{"\ud800":"\ud800"}]}}}`, "ls", `{"a":{"\ufffdk":[{"\ufffd":"\ufffd"}]}}`},
		{"in a key", `{"name":"ls","\ud83d":1}`, "ls", `{"\ufffd":1}`},
		{"in the name", `{"name":"l\ud83ds"}`, "l\uFFFDs", `{}`},
		{"in the wrong order", `{"name":"ls","v":"\ude00\ud83d"}`, "ls", `{"v":"\ufffd\ufffd"}`},
		{"as bytes", "{\"name\":\"l\xed\xa0\xbd\",\"k\xed\xb8\x80\":\"\xed\xb8\x80\xed\xa0\xbd\"}", "l\uFFFD", "{\"k\uFFFD\":\"\uFFFD\uFFFD\"}"},
	} {
		for _, layout := range []struct{ kind, format string }{{"", "%s"}, {"", "[%s]"}, {ndjson, "%s\n"}} {
			r, s := newTest(nil)
			a := serve(t, r, withKey(post("/v1/events", fmt.Sprintf(layout.format, c.event), "Content-Type", layout.kind)))
			if a.Accepted != 1 || len(s.Events) != 1 || len(s.Failures) != 0 || repaired(t, r) != 1 {
				t.Errorf("%s: got %+v, %d failures, %d repaired", c.name, a, len(s.Failures), repaired(t, r))
				continue
			}
			if e := s.Events[0]; string(e.Name) != c.column || string(e.Properties) != c.props {
				t.Errorf("%s: got %q %s, want %q %s", c.name, e.Name, e.Properties, c.column, c.props)
			}
		}
	}
}

// Only the events are counted that had some and were accepted.
func TestLoneSurrogatesAreCounted(t *testing.T) {
	r, s := newTest(nil)
	bad := `{"nme":"x","v":"\ud83d"}`
	a := serve(t, r, withKey(post("/v1/events", `{"name":"a","v":"\ud83d"}`+bad+`{"name":"b","v":"\ud83d\ude00"}{"name":"c","\ud83d":"\ude00"}`)))
	if a.Accepted != 3 || a.Codes() != "1:missing_name" || repaired(t, r) != 2 {
		t.Errorf("got %+v, %d repaired", a, repaired(t, r))
	}
	if len(s.Failures) != 1 || string(s.Failures[0].Raw) != bad {
		t.Errorf("a rejected event is not kept as it was sent: %+v", s.Failures)
	}
	s.Err = errMemory
	if a := serve(t, r, withKey(post("/v1/events", `{"name":"a","v":"\ud83d"}`))); a.Status != 503 || repaired(t, r) != 2 {
		t.Errorf("not stored: got %+v, %d repaired", a, repaired(t, r))
	}
}

func TestLoneSurrogatesOfOtherProducts(t *testing.T) {
	const cut = `"l\ud83d"`
	for _, c := range []struct {
		path, body string
		header     []string
		want       string // in the properties
	}{
		{"/v1/batch", `{"batch":[{"type":"track","event":"a","userId":"u","properties":{"v":` + cut + `}}]}`, nil, `"v":"l\ufffd"`},
		{"/v1/track", `{"event":"a","userId":"u","properties":{"v":` + cut + `}}`, nil, `"v":"l\ufffd"`},
		{"/capture", `{"api_key":"` + key + `","event":"a","distinct_id":"u","properties":{"v":` + cut + `}}`, nil, `"v":"l\ufffd"`},
		{"/2/httpapi", `{"api_key":"` + key + `","events":[{"event_type":"a","user_id":"u","event_properties":{"v":` + cut + `}}]}`, nil, `"v":"l\ufffd"`},
		{"/api/public/ingestion", `{"batch":[{"id":"1","type":"trace-create","body":{"v":` + cut + `}}]}`, nil, `"v":"l\ufffd"`},
		{"/v1/events", `{"specversion":"1.0","id":"1","source":"s","type":"a","data":{"v":` + cut + `}}`,
			[]string{"Content-Type", "application/cloudevents+json"}, `"v":"l\ufffd"`},
		{"/v1/events", `{"v":` + cut + `}`,
			[]string{"Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "s", "Ce-Type", "a"}, `"v":"l\ufffd"`},
		{"/v1/events", "--b\r\nContent-Disposition: form-data; name=event\r\n\r\n{\"name\":\"a\",\"v\":" + cut + "}\r\n--b--\r\n",
			[]string{"Content-Type", "multipart/form-data; boundary=b"}, `"v":"l\ufffd"`},
		{"/v1/traces", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"` + traceHex + `","spanId":"` + spanHex + `","name":"a",` +
			`"attributes":[{"key":"v","value":{"stringValue":` + cut + `}}]}]}]}]}`, nil, "\"v\":\"l\uFFFD\""},
	} {
		r, s := newTest(nil)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, withKey(post(c.path, c.body, c.header...)))
		if w.Code/100 != 2 || len(s.Events) != 1 || len(s.Failures) != 0 || repaired(t, r) != 1 {
			t.Errorf("%s: got %d %s, %d events, %d repaired", c.path, w.Code, w.Body, len(s.Events), repaired(t, r))
			continue
		}
		if got := string(s.Events[0].Properties); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s, want %s", c.path, got, c.want)
		}
		if _, _, err := new(jsonscan.Scanner).Object(s.Events[0].Properties); err != nil {
			t.Errorf("%s: %v", c.path, err)
		}
	}
}

// A value that leaves its row is repaired as well, from memory and from disk, and however many there are.
func TestLoneSurrogatesInBlobs(t *testing.T) {
	for _, size := range []int{100 << 10, 3 << 20} {
		dir := t.TempDir()
		r, s := newTest(spooling(t, dir))
		text := strings.Repeat(`long \\ud83d \ud83d\ude00 \ud83d `, size/32)
		list := strings.Repeat(`"\ude00",`, size/9) + "1"
		event := `{"name":"a","t":"` + text + `","l":[` + list + `],"s":"\ud83d"}`
		a := serve(t, r, withKey(post("/v1/events", event+"\n{\"name\":\"b\"}\n"+event)))
		if a.Accepted != 3 || len(s.Blobs) != 4 || repaired(t, r) != 2 {
			t.Fatalf("got %+v, %d blobs, %d repaired", a, len(s.Blobs), repaired(t, r))
		}
		want := []byte(event)
		jsonscan.ReplaceLoneSurrogates(want, true)
		for _, i := range []int{0, 2} {
			whole := s.Whole(t, i)
			if _, _, err := new(jsonscan.Scanner).Object(whole); err != nil {
				t.Errorf("event %d: %v", i, err)
			}
			got := parsed(t, whole).(map[string]any)
			if all := parsed(t, want).(map[string]any); got["t"] != all["t"] || fmt.Sprint(got["l"]) != fmt.Sprint(all["l"]) || got["s"] != "\uFFFD" {
				t.Errorf("event %d of %d bytes came back changed", i, size)
			}
		}
		idle(t, r, dir)
	}
}

// A rejected event of a body on disk is kept as it was sent, and a full disk is an outage.
func TestLoneSurrogatesOnDisk(t *testing.T) {
	dir := t.TempDir()
	r, s := newTest(spooling(t, dir))
	bad := `{"v":"` + strings.Repeat(`\ud83d`, 1<<18) + `"}`
	a := serve(t, r, withKey(post("/v1/events", `{"name":"a","v":"\ud83d"}`+bad)))
	if a.Accepted != 1 || a.Codes() != "1:missing_name" || len(s.Failures) != 1 || string(s.Failures[0].Raw) != bad {
		t.Errorf("got %+v, %d failures", a, len(s.Failures))
	}
	idle(t, r, dir)
	r, s = newTest(func(o *Options) {
		spooling(t, dir)(o)
		o.MaxSpool = 3 << 20
	})
	if a := serve(t, r, withKey(post("/v1/events", `{"name":"a","v":"`+strings.Repeat(`\ud83d`, 1<<18)+strings.Repeat("x", 1<<19)+`"}`))); a.Status != 503 || len(s.Events) != 0 {
		t.Errorf("on a full disk: got %+v", a)
	}
	idle(t, r, dir)
}

func TestLoneSurrogatesAreHashedAndJudgedAsStored(t *testing.T) {
	schemas := &wantsText{}
	r, s := withProjects(t, func(o *Options) { o.Schemas = schemas }, Project{Hash: []string{"properties.email", "user_id"}, Salt: salt})
	a := sendFile(t, r, `{"name":"strict","user_id":"u\ud83d","email":"m\ud83d","t":"\ud83d"}`)
	if a.Accepted != 1 || len(schemas.seen) != 1 || schemas.seen[0] != `{"email":"m\ufffd","t":"\ufffd"}` {
		t.Fatalf("got %+v, judged %q", a, schemas.seen)
	}
	sum := func(text string) string {
		h := hmac.New(sha256.New, []byte(salt))
		h.Write([]byte(text))
		return hex.EncodeToString(h.Sum(nil))
	}
	if e := s.Events[0]; string(e.UserID) != sum("u\uFFFD") || string(e.Properties) != `{"email":"`+sum("m\uFFFD")+`","t":"\ufffd"}` {
		t.Errorf("got %s %s", e.UserID, e.Properties)
	}
}
