package receiver

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/protocol"
)

// The raw bytes and the content encoding of a failure belong together.
func TestRawIsWhatTheEncodingSays(t *testing.T) {
	many := []byte(one + one + one)
	for _, c := range []struct {
		name, encoding string
		body           []byte
		code           string
		raw            []byte
		kept           string // encoding
	}{
		{"a request, compressed", "gzip", gzipped(many), "too_many_events", gzipped(many), "gzip"},
		{"a request, plain", "", many, "too_many_events", many, ""},
		{"a request, named plain", "identity", many, "too_many_events", many, "identity"},
		{"only space, compressed", "Zstd", zstded([]byte(" ")), "empty_body", zstded([]byte(" ")), "Zstd"},
		{"an encoding that is not known", "br", []byte("x"), "unsupported_encoding", []byte("x"), "br"},
		{"an event, compressed", "gzip", gzipped([]byte(one + "1")), "not_an_object", []byte("1"), ""},
		{"an event, named plain", "identity", []byte(one + "1"), "not_an_object", []byte("1"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := newTest(func(o *Options) { o.MaxEvents = 2 })
			serve(t, r, withKey(intake.PostReader("/v1/events", bytes.NewReader(c.body), "Content-Encoding", c.encoding)))
			if len(s.Failures) != 1 {
				t.Fatalf("got %d failures", len(s.Failures))
			}
			if f := s.Failures[0]; f.Code != c.code || !bytes.Equal(f.Raw, c.raw) || f.ContentEncoding != c.kept {
				t.Errorf("got %s %q in %q", f.Code, f.Raw, f.ContentEncoding)
			}
		})
	}
}

// Memory is charged for the body as sent and for its decompressed form.
func TestCompressedBodyIsCharged(t *testing.T) {
	plain := bytes.Repeat([]byte(one+"\n"), 500)
	body := bytes.Clone(plain)
	for i := range body { // does not get smaller
		if body[i] == 'a' {
			body[i] = byte('a' + i*7%26)
		}
	}
	sent := gzipped(body)
	r, s := newTest(func(o *Options) { o.MaxMemory = int64(len(sent)) + 20<<10 })
	hold(t, r, 1) // another request, so that the limit applies
	a := serve(t, r, withKey(intake.PostReader("/v1/events", bytes.NewReader(sent), "Content-Encoding", "gzip")))
	if a.Status != 503 || a.Error.Code != "busy" || len(s.Failures) != 0 || r.admission.Memory() != 1 {
		t.Errorf("got %d %s, %d failures, %d bytes charged", a.Status, a.Error.Code, len(s.Failures), r.admission.Memory()-1)
	}
}

func TestAnonymousBudget(t *testing.T) {
	const rate = 4 << 10
	large := strings.Repeat("x", 30<<10)
	chunked := func(s string) io.Reader { return struct{ io.Reader }{strings.NewReader(s)} }
	for _, c := range []struct {
		name    string
		rate    int64
		body    func() io.Reader
		header  []string
		before  int // such requests
		kept    int
		dropped int
	}{
		{"in it", rate, func() io.Reader { return strings.NewReader(large) }, nil, 2, 2, 0},
		{"beyond it", rate, func() io.Reader { return strings.NewReader(large) }, nil, 4, 2, 2},
		{"chunked", rate, func() io.Reader { return chunked(large) }, []string{"X-API-Key", "unknown"}, 4, 2, 2},
		{"many without a body", rate, func() io.Reader { return strings.NewReader("") }, nil, 70, 64, 6},
		{"none", 0, func() io.Reader { return strings.NewReader(one) }, nil, 2, 0, 2},
		{"with a key", 0, func() io.Reader { return strings.NewReader("bad") }, []string{"X-API-Key", key}, 2, 2, 0},
		{"with a key, refused by its head", 0, func() io.Reader { return strings.NewReader(large) },
			[]string{"X-API-Key", key, "Content-Type", "a/b"}, 2, 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r, s := newTest(func(o *Options) { o.AnonymousRate = c.rate })
				var first answer
				for i := range c.before {
					body := c.body()
					a := serve(t, r, intake.PostReader("/v1/events", body, c.header...))
					if i == 0 {
						first = a
					} else if a.Status != first.Status || a.Codes() != first.Codes() {
						t.Errorf("answered %d %s, and %d %s before", a.Status, a.Codes(), first.Status, first.Codes())
					}
				}
				if len(s.Failures) != c.kept || len(s.Dropped) != c.dropped || c.dropped > 0 && s.Dropped[0] != "anonymous" {
					t.Errorf("%d are kept, %d dropped %v", len(s.Failures), len(s.Dropped), s.Dropped)
				}
				if r.admission.Memory() != 0 {
					t.Errorf("%d bytes still charged", r.admission.Memory())
				}
				if c.rate == 0 {
					return
				}
				time.Sleep(admission.BudgetSeconds * time.Second) // in a bubble: the budget fills
				if !r.admission.Budget.Take(admission.BudgetSeconds*c.rate) || r.admission.Budget.Take(1) {
					t.Error("it does not refill to its burst")
				}
			})
		})
	}
}

// However many strangers send slowly, there is memory for clients.
func TestStrangersLeaveMemoryToClients(t *testing.T) {
	r, s := newTest(func(o *Options) { o.MaxMemory = 400 << 10 })
	body := strings.Repeat("x", 120<<10)
	hold(t, r, 100<<10) // another request's
	if a := serve(t, r, post("/v1/events", body)); a.Status != 401 || len(s.Failures[0].Raw) != 0 || !strings.Contains(s.Failures[0].Message, "memory") {
		t.Errorf("a stranger: got %d, %d bytes kept, %q", a.Status, len(s.Failures[0].Raw), s.Failures[0].Message)
	}
	if a := serve(t, r, withKey(post("/v1/events", body))); a.Status != 400 || len(s.Failures[1].Raw) != len(body) {
		t.Errorf("a client: got %+v", a)
	}
}

// A body that nobody will keep is not read.
func TestAnonymousBeyondTheBudgetIsNotRead(t *testing.T) {
	r, _ := newTest(func(o *Options) { o.AnonymousRate = 0 })
	a := serve(t, r, intake.PostReader("/v1/events", readFails{t}))
	if a.Status != 401 || a.Error.Code != "missing_key" {
		t.Errorf("got %+v", a)
	}
}

type readFails struct{ t *testing.T }

func (r readFails) Read([]byte) (int, error) { r.t.Error("it is read"); return 0, io.EOF }

func TestReportedHeaders(t *testing.T) {
	long := strings.Repeat("l", 3000)
	r, s := newTest(nil)
	req := post("/v1/events?key="+key+"&x=1", "bad", "Authorization", "Bearer "+key, "Cookie", "c="+key, "X-API-Key", key,
		"Proxy-Authorization", key, "Referer", "https://a.example/p?key="+key, "Origin", "https://a.example", "Accept-Language", "de",
		"X-Request-Id", "r-1", "Traceparent", "00-1-2-01", "User-Agent", long, "Content-Type", "text/plain; x="+long)
	req.Header["X-Forwarded-For"] = []string{"1.1.1.1", "2.2.2.2"}
	serve(t, r, req)
	f := s.Failures[0]
	want := []pipeline.Header{{Name: "Host", Value: "example.com"}, {Name: "Content-Length", Value: "3"}, {Name: "Origin", Value: "https://a.example"},
		{Name: "Referer", Value: "https://a.example/p"}, {Name: "Accept-Language", Value: "de"}, {Name: "X-Forwarded-For", Value: "1.1.1.1, 2.2.2.2"},
		{Name: "X-Request-Id", Value: "r-1"}, {Name: "Traceparent", Value: "00-1-2-01"}}
	if !slices.Equal(f.Headers, want) {
		t.Errorf("got %v", f.Headers)
	}
	if f.Path != "/v1/events" || len(f.UserAgent) != protocol.MaxHeader || len(f.ContentType) != protocol.MaxHeader {
		t.Errorf("path %q, %d and %d bytes", f.Path, len(f.UserAgent), len(f.ContentType))
	}
	if strings.Contains(fmt.Sprintf("%+v", f), key) {
		t.Errorf("the key is reported: %+v", f)
	}
}

func TestRedrive(t *testing.T) {
	id := pipeline.NewUUIDv7(1)
	const at = 1795319112345
	two := `{"name":"a"}` + "\n" + `{"name":"b","event_id":"e1"}` + "\n" + `{"name":"c","timestamp":5000000000000}` + "\nbad"
	r, s := newTest(nil)
	d := Redrive{ID: id, Time: at, Project: "game", ContentType: ndjson, ContentEncoding: "gzip", ClientIP: "1.2.3.4", UserAgent: "sdk/1",
		Body: gzipped([]byte(two)), Durability: pipeline.Bucket}
	for range 2 {
		s.Events, s.Failures = nil, nil
		got, err := r.Redrive(t.Context(), d)
		if err != nil || got.Accepted != 3 || got.Rejected != 1 || got.Object != "events/x.parquet" || got.RequestID == "" || got.Code != "invalid_json" {
			t.Fatalf("got %+v, %v", got, err)
		}
		if s.Durability != pipeline.Bucket || s.Names() != "a b c" {
			t.Errorf("durability %s, %s", s.Durability, s.Names())
		}
		for i, want := range []struct {
			id   pipeline.UUID
			time int64
		}{
			{pipeline.UUIDv5([]byte("game"), []byte("redrive/"+id.String()+"/0")), at},
			{pipeline.UUIDv5([]byte("game"), []byte("e1")), pipeline.NoTime},
			{pipeline.UUIDv5([]byte("game"), []byte("redrive/"+id.String()+"/2")), 5000000000000},
		} {
			e := s.Events[i]
			if e.ID != want.id || e.Timestamp != want.time || string(e.Project) != "game" || string(e.Context) != `{"ip":"1.2.3.4","user_agent":"sdk/1"}` {
				t.Errorf("event %d: %+v", i, e)
			}
		}
		if f := s.Failures[0]; len(s.Failures) != 1 || f.Code != "invalid_json" || string(f.Raw) != "bad" || f.Index != 3 || f.ContentEncoding != "" ||
			f.Path != "redrive/"+id.String() || f.Project != "game" || f.RequestID != got.RequestID {
			t.Errorf("failures %+v", s.Failures)
		}
	}
	if r.admission.Memory() != 0 {
		t.Errorf("%d bytes still charged", r.admission.Memory())
	}
}

func TestRedriveRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Redrive)
		with   func(*Options)
		append error
		code   string // of the refusal
		failed string // of the error
	}{
		{"as a whole", func(d *Redrive) { d.ContentEncoding = "gzip" }, nil, nil, "invalid_encoding", ""},
		{"its only event", func(d *Redrive) { d.Body = []byte("{bad") }, nil, nil, "invalid_json", ""},
		{"by its head", func(d *Redrive) { d.ContentType = "a/b" }, nil, nil, "unsupported_media_type", ""},
		{"larger than a client may send", nil, func(o *Options) { o.MaxBody = 3 }, nil, "", ""},
		{"not taken", nil, nil, io.ErrShortWrite, "", "unavailable"},
		{"without an id", func(d *Redrive) { d.ID = pipeline.UUID{} }, nil, nil, "", "no id"},
		{"without a project", func(d *Redrive) { d.Project = "" }, nil, nil, "", "no project"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := newTest(c.with)
			s.Err = c.append
			d := Redrive{ID: pipeline.NewUUIDv7(1), Project: "game", Body: []byte(one)}
			if c.change != nil {
				c.change(&d)
			}
			got, err := r.Redrive(t.Context(), d)
			if (err == nil) != (c.failed == "") || err != nil && !strings.Contains(err.Error(), c.failed) {
				t.Errorf("err %v", err)
			}
			if got.Code != c.code || (got.Message == "") != (c.code == "") || got.Accepted != len(s.Events) || len(s.Failures) != 0 { // it is kept already
				t.Errorf("got %+v, %d failures", got, len(s.Failures))
			}
		})
	}
}

// A client that waits for 100 Continue sends its body although its head is rejected.
func TestRefusedByTheHeadIsReadBeforeTheAnswer(t *testing.T) {
	r, s := newTest(nil)
	server := httptest.NewServer(r)
	defer server.Close()
	body := strings.Repeat("x", 2<<20) // more than a server reads by itself
	req, _ := http.NewRequest("POST", server.URL+"/v1/events", strings.NewReader(body))
	req.Header.Set("Expect", "100-continue")
	req.Header.Set("X-API-Key", "unknown")
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if a := intake.Read(t, resp); a.Status != 401 || a.Error.Code != "unknown_key" {
		t.Errorf("got %+v", a)
	}
	server.Close() // the failure is reported behind the answer
	if len(s.Failures) != 1 || string(s.Failures[0].Raw) != body || s.Failures[0].Project != "" {
		t.Errorf("%d failures", len(s.Failures))
	}
}
