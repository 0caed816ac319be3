package receiver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/protocol"
)

const one = `{"name":"a"}`

func TestAccept(t *testing.T) {
	for _, c := range []struct {
		name, target string
		key          string
		status       int
		durability   pipeline.Durability
		object       string
	}{
		{"default", "/v1/events", key, 202, pipeline.Disk, ""},
		{"memory", "/v1/events?durability=memory", key, 202, pipeline.Memory, ""},
		{"disk", "/v1/events?durability=disk", keyDisk, 202, pipeline.Disk, ""},
		{"object", "/v1/events?durability=object", keyDisk, 200, pipeline.Bucket, "events/x.parquet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := newTest(nil)
			a := serve(t, r, post(c.target, one, "Authorization", "Bearer "+c.key))
			if a.Status != c.status || a.Accepted != 1 || a.Rejected != 0 || a.Object != c.object {
				t.Errorf("got %+v", a)
			}
			if s.Durability != c.durability || len(s.Events) != 1 || len(s.Failures) != 0 {
				t.Errorf("durability %s, %d events, %d failures", s.Durability, len(s.Events), len(s.Failures))
			}
			if got := a.Header.Get("Content-Type"); got != "application/json" {
				t.Errorf("content type %q", got)
			}
		})
	}
}

func TestKeyRaisesTheDefaultDurability(t *testing.T) {
	r, s := newTest(func(o *Options) { o.Durability = pipeline.Memory })
	serve(t, r, post("/v1/events", one, "X-API-Key", keyDisk))
	if s.Durability != pipeline.Disk {
		t.Errorf("got %s, want disk", s.Durability)
	}
}

func TestKeys(t *testing.T) {
	basic := func(user string) string {
		req := httptest.NewRequest("POST", "/", nil)
		req.SetBasicAuth(user, "")
		return req.Header.Get("Authorization")
	}
	for _, c := range []struct {
		name, target string
		header       []string
		code         string // empty: accepted
	}{
		{"bearer", "/v1/events", []string{"Authorization", "Bearer " + key}, ""},
		{"bearer, lower case", "/v1/events", []string{"Authorization", "bearer  " + key}, ""},
		{"basic user", "/v1/events", []string{"Authorization", basic(key)}, ""},
		{"x-api-key", "/v1/events", []string{"X-API-Key", key}, ""},
		{"query", "/v1/events?key=" + key, nil, ""},
		{"other scheme, then header", "/v1/events", []string{"Authorization", "Token x", "X-API-Key", key}, ""},
		{"none", "/v1/events", nil, "missing_key"},
		{"empty query", "/v1/events?key=", nil, "missing_key"},
		{"other scheme", "/v1/events", []string{"Authorization", "Token " + key}, "missing_key"},
		{"unknown bearer", "/v1/events", []string{"Authorization", "Bearer x"}, "unknown_key"},
		{"empty bearer", "/v1/events", []string{"Authorization", "Bearer "}, "missing_key"},
		{"unknown basic", "/v1/events", []string{"Authorization", basic("x")}, "unknown_key"},
		{"unknown header", "/v1/events", []string{"X-API-Key", "x"}, "unknown_key"},
		{"unknown query", "/v1/events?key=x", nil, "unknown_key"},
		{"a hash is no key", "/v1/events?key=" + fmt.Sprintf("%x", HashKey(key)), nil, "unknown_key"},
		{"bearer before query", "/v1/events?key=" + key, []string{"Authorization", "Bearer x"}, "unknown_key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := newTest(nil)
			server := httptest.NewServer(r)
			defer server.Close()
			req, _ := http.NewRequest("POST", server.URL+c.target, strings.NewReader(one))
			for i := 0; i < len(c.header); i += 2 {
				req.Header.Set(c.header[i], c.header[i+1])
			}
			resp, err := server.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			a := intake.Read(t, resp)
			want := 202
			if c.code != "" {
				want = 401
			}
			if a.Status != want || a.Error.Code != c.code {
				t.Errorf("got %d %s, want %d %s", a.Status, a.Error.Code, want, c.code)
			}
			if a.Status == 401 && (s.Appends != 0 || len(s.Failures) != 1 || string(s.Failures[0].Raw) != one || a.Header.Get("WWW-Authenticate") == "") {
				t.Errorf("appends %d, failures %v, header %v", s.Appends, s.Failures, a.Header)
			}
			if a.Status == 202 && string(s.Events[0].Project) != "game" {
				t.Errorf("project %q", s.Events[0].Project)
			}
		})
	}
}

func TestRefuseRequest(t *testing.T) {
	for _, c := range []struct {
		name, target string
		header       []string
		body         string
		with         func(*Options)
		status       int
		code         string
		kept         bool // with its bytes
	}{
		{"empty", "", nil, "", nil, 400, "empty_body", false},
		{"only space", "", nil, " \r\n\t", nil, 400, "empty_body", true},
		{"only a byte order mark", "", nil, "\xef\xbb\xbf\n", nil, 400, "empty_body", true},
		{"unknown durability", "?durability=tape", nil, one, nil, 400, "unknown_durability", true},
		{"below the key's floor", "?durability=memory", []string{"Authorization", "Bearer " + keyDisk}, one, nil, 403, "durability_too_low", true},
		{"media type", "", []string{"Content-Type", "text/html"}, one, nil, 415, "unsupported_media_type", true},
		{"broken media type", "", []string{"Content-Type", "application/json; charset"}, one, nil, 415, "unsupported_media_type", true},
		{"charset", "", []string{"Content-Type", "application/json; charset=latin1"}, one, nil, 415, "unsupported_charset", true},
		{"encoding", "", []string{"Content-Encoding", "br"}, one, nil, 415, "unsupported_encoding", true},
		{"two encodings", "", []string{"Content-Encoding", "gzip, gzip"}, one, nil, 415, "unsupported_encoding", true},
		{"body", "", nil, one, func(o *Options) { o.MaxBody = int64(len(one)) - 1 }, 413, "body_too_large", false},
		{"decoded", "", nil, one, func(o *Options) { o.MaxDecoded = int64(len(one)) - 1 }, 413, "body_too_large", false},
		{"decompressed", "", []string{"Content-Encoding", "gzip"}, string(gzipped([]byte(one))), func(o *Options) { o.MaxDecoded = int64(len(one)) - 1 }, 413, "decoded_too_large", true},
		{"events", "", nil, one + one + one, func(o *Options) { o.MaxEvents = 2 }, 413, "too_many_events", true},
		{"events of an array", "", nil, "[" + one + ",\n{\"name\":\"b\",\n\"x\":\n1},1]", func(o *Options) { o.MaxEvents = 2 }, 413, "too_many_events", true},
		{"events of lines", "", []string{"Content-Type", "application/x-ndjson"}, one + "\n" + one + "\n\n" + one, func(o *Options) { o.MaxEvents = 2 }, 413, "too_many_events", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := newTest(c.with)
			req := post("/v1/events"+c.target, c.body, c.header...)
			if req.Header.Get("Authorization") == "" {
				withKey(req)
			}
			a := serve(t, r, req)
			if a.Status != c.status || a.Error.Code != c.code || a.Error.Message == "" || a.Accepted != 0 || a.Rejected != 0 {
				t.Errorf("got %+v", a)
			}
			if s.Appends != 0 {
				t.Error("events were appended")
			}
			if len(s.Failures) != 1 {
				t.Fatalf("got %d failures, want 1", len(s.Failures))
			}
			f := s.Failures[0]
			if f.Index != -1 || f.Code != c.code || f.RequestID != a.RequestID || f.ContentEncoding != req.Header.Get("Content-Encoding") {
				t.Errorf("got %+v", f)
			}
			if want := c.body; c.kept && string(f.Raw) != want || !c.kept && len(f.Raw) != 0 {
				t.Errorf("raw %q, want %q", f.Raw, want)
			}
			if told := strings.Contains(f.Message, "its bytes are not kept"); told == (c.kept || c.body == "") || !strings.HasPrefix(f.Message, a.Error.Message) {
				t.Errorf("message %q", f.Message)
			}
			if r.admission.Memory() != 0 {
				t.Errorf("%d bytes still charged", r.admission.Memory())
			}
		})
	}
}

func TestLimitsAreInclusive(t *testing.T) {
	size := int64(len(one))
	r, _ := newTest(func(o *Options) { o.MaxBody, o.MaxDecoded, o.MaxEvent, o.MaxEvents = size, size, int(size), 1 })
	for range 3 { // with new and with used buffers
		if a := serve(t, r, withKey(post("/v1/events", one))); a.Status != 202 {
			t.Errorf("got %+v", a)
		}
	}
}

func TestMethodsAndPaths(t *testing.T) {
	r, s := newTest(nil)
	for _, c := range []struct {
		method, path string
		status       int
		code         string
	}{
		{"GET", "/v1/events", 405, "method_not_allowed"},
		{"PUT", "/v1/events", 405, "method_not_allowed"},
		{"POST", "/", 404, "not_found"},
		{"POST", "/v1/events/x", 404, "not_found"},
		{"POST", "//v1/events", 404, "not_found"},
		{"OPTIONS", "/x", 404, "not_found"},
	} {
		a := serve(t, r, withKey(httptest.NewRequest(c.method, c.path, strings.NewReader(one))))
		if a.Status != c.status || a.Error.Code != c.code || a.Error.Message == "" || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: got %+v, want %d %s", c.method, c.path, a, c.status, c.code)
		}
		if allow := a.Header.Get("Allow"); (allow == "POST, OPTIONS") != (c.status == 405) {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, allow)
		}
	}
	if len(s.Failures) != 0 || len(s.Events) != 0 {
		t.Errorf("%d failures, %d events", len(s.Failures), len(s.Events))
	}
}

func TestUnavailable(t *testing.T) {
	for _, c := range []struct {
		err  error
		code string
		says string
	}{
		{errors.New("open /var/lib/wal: no space left"), "unavailable", "send it again"},
		{fmt.Errorf("append: %w", pipeline.ErrPending), "not_stored_yet", "same event_id"},
	} {
		r, s := newTest(nil)
		s.Err = c.err
		a := serve(t, r, withKey(post("/v1/events", one+"\nbad")))
		if a.Status != 503 || a.Error.Code != c.code || a.Header.Get("Retry-After") != "3" || a.Accepted != 0 {
			t.Errorf("got %+v", a)
		}
		if !strings.Contains(a.Error.Message, c.says) || strings.Contains(a.Error.Message, "/var/") {
			t.Errorf("message %q", a.Error.Message)
		}
		if len(s.Failures) != 0 {
			t.Errorf("what will be sent again is reported: %+v", s.Failures)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	r, s := newTest(func(o *Options) { o.MaxMemory = 200 << 10 })
	large := `{"name":"a","x":"` + strings.Repeat("x", 150<<10) + `"}`
	held, release := make(chan struct{}), make(chan struct{})
	s.Before = func(context.Context) error { close(held); <-release; return nil }
	first := make(chan answer)
	go func() { first <- serve(t, r, withKey(post("/v1/events", large))) }()
	<-held
	s.Before = nil
	for range 3 {
		a := serve(t, r, withKey(post("/v1/events", large)))
		if a.Status != 503 || a.Error.Code != "busy" || a.Header.Get("Retry-After") != "3" {
			t.Errorf("got %+v", a)
		}
	}
	many := strings.Repeat("1 ", 900) // little to read, much to keep
	if a := serve(t, r, withKey(post("/v1/events", many))); a.Status != 503 || a.Error.Code != "busy" {
		t.Errorf("many events: got %d %s, want 503 busy", a.Status, a.Error.Code)
	}
	if a := serve(t, r, withKey(post("/v1/events", one))); a.Status != 202 {
		t.Errorf("a small request beside the large one: got %d", a.Status)
	}
	close(release)
	if a := <-first; a.Status != 202 {
		t.Errorf("got %+v", a)
	}
	// A request beyond the limit passes if it is alone: otherwise it would be rejected forever.
	if a := serve(t, r, withKey(post("/v1/events", large+large))); a.Status != 202 || a.Accepted != 2 {
		t.Errorf("got %+v", a)
	}
	if got := r.admission.Memory(); got != 0 {
		t.Errorf("%d bytes still charged", got)
	}
}

// Medium bodies are checked one for each processor; small ones pass them. Requests that wait for the disk delay nobody.
func TestMediumBodies(t *testing.T) {
	const events = 1000
	r, s := newTest(func(o *Options) { o.MaxMemory = 8 << 20 })
	var body strings.Builder
	properties := make([]string, events)
	for i := range properties {
		properties[i] = fmt.Sprintf(`{"n":%d,"text":%q}`, i, strings.Repeat(string(rune('a'+i%26)), i%700))
		fmt.Fprintf(&body, `{"name":"a",%s`+"\n", properties[i][1:])
	}
	medium := func() *http.Request { return withKey(post("/v1/events", body.String())) }

	slots := runtime.GOMAXPROCS(0)
	arrived, release := make(chan bool, slots), make(chan struct{})
	s.Before = func(ctx context.Context) error { arrived <- true; <-release; return nil }
	answers := make(chan answer, 2*slots)
	for range slots {
		go func() { answers <- serve(t, r, medium()) }()
	}
	for range slots {
		<-arrived
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan answer)
	go func() { left <- serve(t, r, medium().WithContext(ctx)) }()
	small := make(chan answer)
	go func() { small <- serve(t, r, withKey(post("/v1/events", one))) }()
	<-arrived // it did not wait for its turn
	cancel()
	if a := <-left; a.Status != 503 || a.Error.Code != "cancelled" {
		t.Errorf("who left while it waited for its turn: %+v", a)
	}
	close(release)
	if a := <-small; a.Status != 202 {
		t.Errorf("a small one: %+v", a)
	}
	for range slots {
		if a := <-answers; a.Status != 202 || a.Accepted != events {
			t.Errorf("got %+v", a)
		}
	}

	// All of twice as many are taken before the first is on disk.
	all := make(chan struct{})
	var taken atomic.Int32
	s.Before, s.OnWait = nil, func() {
		if taken.Add(1) == int32(2*slots) {
			close(all)
		}
		select {
		case <-all:
		case <-time.After(20 * time.Second):
			t.Error("one that waits for the disk keeps others from being judged")
		}
	}
	for range 2 * slots {
		go func() { answers <- serve(t, r, medium()) }()
	}
	for range 2 * slots {
		if a := <-answers; a.Status != 202 || a.Accepted != events {
			t.Errorf("got %+v", a)
		}
	}
	if want := 1 + 3*slots*events; len(s.Events) != want {
		t.Fatalf("%d events, want %d", len(s.Events), want)
	}
	count := map[string]int{}
	for _, e := range s.Events {
		count[string(e.Properties)]++
	}
	for _, p := range properties {
		if count[p] != 3*slots {
			t.Fatalf("%s: %d times, want %d", p, count[p], 3*slots)
		}
	}
	if got := r.admission.Memory(); got != 0 || r.admission.Turns() != 0 {
		t.Errorf("%d bytes still charged, %d still judged", got, r.admission.Turns())
	}
}

// rawPost sends head and parts of a body over a bare connection and reads the answer.
func rawPost(t *testing.T, server *httptest.Server, head string, parts ...string) answer {
	t.Helper()
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\n"+head+"\r\n")
	for _, p := range parts {
		io.WriteString(c, p)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return intake.Read(t, resp)
}

func TestStalledBody(t *testing.T) {
	r, s := newTest(func(o *Options) { o.ReadTimeout = 100 * time.Millisecond })
	server := httptest.NewServer(r)
	defer server.Close()
	auth := "Authorization: Bearer " + key + "\r\n"
	for _, c := range []struct {
		name, head, part string
		status           int
		code             string
	}{
		{"length", auth + "Content-Length: 100\r\n", one, 408, "timeout"},
		{"nothing at all", auth + "Content-Length: 100\r\n", "", 408, "timeout"},
		{"chunked", auth + "Transfer-Encoding: chunked\r\n", "c\r\n" + one + "\r\n", 408, "timeout"},
		{"gzip", auth + "Content-Encoding: gzip\r\nContent-Length: 100\r\n", string(gzipped([]byte(one))), 408, "timeout"},
		{"zstd", auth + "Content-Encoding: zstd\r\nContent-Length: 100\r\n", string(zstded([]byte(one))), 408, "timeout"},
		{"deflate", auth + "Content-Encoding: deflate\r\nContent-Length: 100\r\n", string(zlibbed([]byte(one))), 408, "timeout"},
		// The server reads on before it answers: that must end as well.
		{"without key", "Content-Length: 1000\r\n", one, 401, "missing_key"},
		{"media type", auth + "Content-Type: a/b\r\nContent-Length: 1000\r\n", one, 415, "unsupported_media_type"},
		{"too large", auth + "Content-Length: 100000000\r\n", one, 413, "body_too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := rawPost(t, server, c.head, c.part); a.Status != c.status || a.Error.Code != c.code {
				t.Errorf("got %d %s %s, want %d %s", a.Status, a.Error.Code, a.Error.Message, c.status, c.code)
			}
		})
	}
	if len(s.Events) != 0 || len(s.Failures) != 9 || r.admission.Memory() != 0 {
		t.Errorf("%d events, %d failures, %d bytes charged", len(s.Events), len(s.Failures), r.admission.Memory())
	}
	for _, f := range s.Failures {
		if len(f.Raw) != 0 || !strings.Contains(f.Message, "its bytes are not kept") {
			t.Errorf("%s: %q, %d bytes", f.Code, f.Message, len(f.Raw))
		}
	}
}

// A request that waits for the bucket longer than a body may take is not cut.
func TestReadTimeoutDoesNotCancelAppend(t *testing.T) {
	r, s := newTest(func(o *Options) { o.ReadTimeout = 50 * time.Millisecond })
	s.Before = func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
			return nil
		}
	}
	server := httptest.NewServer(r)
	defer server.Close()
	for range 2 { // keep-alive: the next request too
		resp, err := server.Client().Post(server.URL+"/v1/events?durability=object&key="+key, "application/json", strings.NewReader(one))
		if err != nil {
			t.Fatal(err)
		}
		if a := intake.Read(t, resp); a.Status != 200 {
			t.Errorf("got %+v", a)
		}
	}
}

func TestClientLeaves(t *testing.T) {
	r, s := newTest(nil)
	s.Before = func(ctx context.Context) error { return ctx.Err() }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := serve(t, r, withKey(post("/v1/events", one)).WithContext(ctx))
	if a.Status != 503 || a.Error.Code != "cancelled" {
		t.Errorf("got %+v", a)
	}
}

func TestIncompleteBody(t *testing.T) {
	r, s := newTest(nil)
	req := withKey(intake.PostReader("/v1/events", io.MultiReader(strings.NewReader(one), errorReader{io.ErrUnexpectedEOF})))
	if a := serve(t, r, req); a.Status != 400 || a.Error.Code != "incomplete_body" || len(s.Events) != 0 {
		t.Errorf("got %+v, %d events", a, len(s.Events))
	}
}

type errorReader struct{ error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.error }

func TestCORS(t *testing.T) {
	for _, c := range []struct {
		name    string
		origins []string
		origin  string
		want    string
	}{
		{"all", []string{"*"}, "https://a.example", "https://a.example"},
		{"listed", []string{"https://b.example", "https://a.example"}, "https://a.example", "https://a.example"},
		{"not listed", []string{"https://b.example"}, "https://a.example", ""},
		{"none", nil, "https://a.example", ""},
		{"no browser", []string{"*"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _ := newTest(func(o *Options) { o.Origins = c.origins })
			for _, method := range []string{"OPTIONS", "POST"} {
				req := httptest.NewRequest(method, "/v1/events", strings.NewReader(one))
				if c.origin != "" {
					req.Header.Set("Origin", c.origin)
				}
				w := httptest.NewRecorder()
				r.ServeHTTP(w, req)
				h := w.Header()
				if got := h.Get("Access-Control-Allow-Origin"); got != c.want {
					t.Errorf("%s: origin %q, want %q", method, got, c.want)
				}
				if c.want != "" && (h.Get("Access-Control-Allow-Credentials") != "true" || h.Get("Vary") != "Origin") {
					t.Errorf("%s: %v", method, h)
				}
				if method == "OPTIONS" && (w.Code != 204 || w.Body.Len() != 0 || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "Authorization")) {
					t.Errorf("preflight: %d %v", w.Code, h)
				}
				if method == "POST" && w.Code != 401 { // also with an error, the answer allows the origin
					t.Errorf("got %d", w.Code)
				}
			}
		})
	}
}

func TestContentTypes(t *testing.T) {
	for _, kind := range []string{
		"", "application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "text/json",
		"text/plain;charset=UTF-8",          // sendBeacon with a string
		"text/plain",                        // no-cors fetch
		"application/x-www-form-urlencoded", // curl -d
		"application/octet-stream", "APPLICATION/JSON",
		"application/x-ndjson", "application/x-ndjson; charset=utf-8", "application/jsonl",
	} {
		r, s := newTest(nil)
		req := post("/v1/events?key="+key, one)
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		if a := serve(t, r, req); a.Status != 202 || len(s.Events) != 1 {
			t.Errorf("%q: got %+v", kind, a)
		}
	}
}

func TestContext(t *testing.T) {
	long := strings.Repeat("ü", 400)
	for _, c := range []struct {
		name, remote string
		header       []string
		want         string
	}{
		{"direct", "192.0.2.1:1234", nil, `{"ip":"192.0.2.1"}`},
		{"ipv6", "[2001:db8::1]:1234", nil, `{"ip":"2001:db8::1"}`},
		{"agent", "192.0.2.1:1", []string{"User-Agent", `a "b"` + "\xff"}, `{"ip":"192.0.2.1","user_agent":"a \"b\"` + "\uFFFD" + `"}`},
		{"long agent", "192.0.2.1:1", []string{"User-Agent", "x" + long}, `{"ip":"192.0.2.1","user_agent":"x` + long[:510] + "\uFFFD" + `"}`},
		{"forged", "192.0.2.1:1", []string{"X-Forwarded-For", "1.2.3.4"}, `{"ip":"192.0.2.1"}`},
		{"proxied", "10.0.0.1:1", []string{"X-Forwarded-For", "6.6.6.6, 1.2.3.4, 10.0.0.2"}, `{"ip":"1.2.3.4"}`},
		{"proxied, broken", "10.0.0.1:1", []string{"X-Forwarded-For", "1.2.3.4, x"}, `{"ip":"10.0.0.1"}`},
		{"country", "10.0.0.1:1", []string{"CF-IPCountry", "DE"}, `{"ip":"10.0.0.1","country":"DE"}`},
		{"country, forged", "192.0.2.1:1", []string{"CF-IPCountry", "DE"}, `{"ip":"192.0.2.1"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, s := newTest(func(o *Options) {
				o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
				o.CountryHeader = "CF-IPCountry"
			})
			req := withKey(post("/v1/events", one, c.header...))
			req.RemoteAddr = c.remote
			serve(t, r, req)
			if got := string(s.Events[0].Context); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// The errors pipeline gets rejected events as they were sent, and never the key.
func TestReport(t *testing.T) {
	r, s := newTest(nil)
	req := post("/v1/events?key="+key, "{\"name\":\"ok\",\n\"x\": 1}\n{\"x\":\r\n[1,\n2]}\n"+`{"a":1,"a":2}`,
		"User-Agent", "sdk/1", "Content-Type", "text/plain", "X-API-Key", key)
	req.RemoteAddr = "192.0.2.7:99"
	before := time.Now().Truncate(time.Millisecond)
	a := serve(t, r, req)
	if got, want := a.Codes(), "1:missing_name 2:duplicate_key"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if len(s.Failures) != 2 {
		t.Fatalf("got %d failures", len(s.Failures))
	}
	for i, raw := range []string{"{\"x\":\r\n[1,\n2]}", `{"a":1,"a":2}`} {
		f := s.Failures[i]
		if f.Time.Before(before) || f.Time.After(time.Now()) {
			t.Errorf("time %s", f.Time)
		}
		want := pipeline.Failure{Time: f.Time, Stage: "receiver", Code: a.Errors[i].Code, Message: a.Errors[i].Message,
			Project: "game", Raw: []byte(raw), RequestID: a.RequestID, Method: "POST", Path: "/v1/events",
			ContentType: "text/plain", ClientIP: "192.0.2.7", UserAgent: "sdk/1", Index: i + 1,
			Headers: []pipeline.Header{{Name: "Host", Value: "example.com"}, {Name: "Content-Length", Value: "50"}}}
		if fmt.Sprintf("%+v", f) != fmt.Sprintf("%+v", want) {
			t.Errorf("got %+v\nwant %+v", f, want)
		}
		if strings.Contains(fmt.Sprintf("%s %+v", f.Raw, f), key) {
			t.Errorf("the key is reported: %+v", f)
		}
	}
}

func TestManyRefused(t *testing.T) {
	r, s := newTest(nil)
	a := serve(t, r, withKey(post("/v1/events", strings.Repeat("1\n", 250))))
	if a.Status != 400 || a.Rejected != 250 || len(a.Errors) != protocol.MaxListed || a.ErrorsOmitted != 150 {
		t.Errorf("got %d, rejected %d, listed %d, omitted %d", a.Status, a.Rejected, len(a.Errors), a.ErrorsOmitted)
	}
	if len(s.Failures) != maxAlike+1 || s.Failures[maxAlike].Count != 250-maxAlike || s.Appends != 0 {
		t.Errorf("%d failures, %d appends", len(s.Failures), s.Appends)
	}
}

// Buffers are used again: many different requests at once, over kept
// connections, must each store the bytes that they sent.
func TestConcurrentRequestsDoNotMix(t *testing.T) {
	r, s := newTest(nil)
	server := httptest.NewServer(r)
	defer server.Close()
	const clients, requests = 8, 60
	want := make([]map[string]string, clients)
	var g sync.WaitGroup
	for c := range clients {
		want[c] = map[string]string{}
		g.Go(func() {
			for n := range requests {
				var body bytes.Buffer
				for e := range 1 + n%7 {
					name := fmt.Sprintf("c%d-n%d-e%d", c, n, e)
					fill := strings.Repeat(string(rune('a'+c)), (n*37+e*11)%900)
					switch (n + e) % 4 {
					case 0: // flat
						fmt.Fprintf(&body, `{"name":%q,"v":%q}`+"\n", name, fill)
						want[c][name] = fmt.Sprintf(`{"v":%q}`, fill)
					case 1: // nested
						fmt.Fprintf(&body, `{"properties":{"v":%q},"name":%q}`+"\n", fill, name)
						want[c][name] = fmt.Sprintf(`{"v":%q}`, fill)
					case 2: // both, over lines
						fmt.Fprintf(&body, "{\"a\":\n%d,\"properties\":{\"v\":\n%q},\"name\":%q}\n", n, fill, name)
						want[c][name] = fmt.Sprintf(`{"a": %d,"v": %q}`, n, fill)
					case 3: // nested, over several lines, with a rejected neighbour
						fmt.Fprintf(&body, "{\"v\":%q}\n{\"name\":%q,\"properties\":{\r\n\"v\":%q}}\n", fill, name, fill)
						want[c][name] = fmt.Sprintf("{  \"v\":%q}", fill)
					}
				}
				data, encoding := body.Bytes(), ""
				switch n % 5 {
				case 1:
					data, encoding = gzipped(data), "gzip"
				case 2:
					data, encoding = zstded(data), "zstd"
				case 3:
					data, encoding = zlibbed(data), "deflate"
				}
				var reader io.Reader = bytes.NewReader(data)
				if n%2 == 0 {
					reader = struct{ io.Reader }{reader} // no length is known: chunked
				}
				req, _ := http.NewRequest("POST", server.URL+"/v1/events", reader)
				req.Header.Set("Authorization", "Bearer "+key)
				req.Header.Set("Content-Encoding", encoding)
				resp, err := server.Client().Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				if a := intake.Read(t, resp); a.Status != 202 || a.Accepted != 1+n%7 {
					t.Errorf("got %+v", a)
				}
			}
		})
	}
	g.Wait()
	seen := 0
	for _, e := range s.Events {
		var c int
		fmt.Sscanf(string(e.Name), "c%d-", &c)
		if got, want := string(e.Properties), want[c][string(e.Name)]; got != want {
			t.Errorf("%s: got %s, want %s", e.Name, got, want)
		}
		seen++
	}
	all := 0
	for _, m := range want {
		all += len(m)
	}
	if seen != all {
		t.Errorf("got %d events, want %d", seen, all)
	}
	for _, f := range s.Failures {
		if f.Code != "missing_name" || !bytes.HasPrefix(f.Raw, []byte(`{"v":"`)) || !bytes.HasSuffix(f.Raw, []byte(`"}`)) {
			t.Errorf("failure %s %s", f.Code, f.Raw)
		}
	}
}

// A limit that is forgotten is named at start. Otherwise every event would be rejected.
func TestNewNamesAMissingLimit(t *testing.T) {
	for name, forget := range map[string]func(*Options){
		"MaxBody": func(o *Options) { o.MaxBody = 0 }, "MaxDecoded": func(o *Options) { o.MaxDecoded = 0 },
		"MaxEvent": func(o *Options) { o.MaxEvent = 0 }, "MaxEvents": func(o *Options) { o.MaxEvents = 0 },
		"MaxDepth": func(o *Options) { o.MaxDepth = 0 }, "MaxMemory": func(o *Options) { o.MaxMemory = 0 },
		"ReadTimeout": func(o *Options) { o.ReadTimeout = 0 }, "RetryAfter": func(o *Options) { o.RetryAfter = -1 },
		"MaxSpool": func(o *Options) { o.SpoolDir = "spool" },
	} {
		o := options()
		forget(&o)
		_, err := New(o, &sink{}, &sink{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err == nil || !strings.Contains(err.Error(), "Options."+name+" ") {
			t.Errorf("without %s: error %v", name, err)
		}
	}
}
