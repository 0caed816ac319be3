package receiver

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/intake"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/protocol"
)

func spooling(t *testing.T, dir string) func(*Options) {
	return func(o *Options) {
		o.SpoolDir, o.MaxSpool, o.BlobThreshold = dir, 256<<20, 64<<10
		o.MaxBody, o.MaxDecoded, o.MaxEvent, o.MaxMemory = 64<<20, 64<<20, 32<<20, 8<<20
	}
}

// idle checks that nothing of a receiver's requests is left.
func idle(t *testing.T, r *Receiver, dir string) {
	t.Helper()
	if n := r.admission.Spooled(); n != 0 {
		t.Errorf("%d bytes are still on disk", n)
	}
	if n := r.admission.Memory(); n != 0 {
		t.Errorf("%d bytes still charged", n)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	if n := r.admission.Turns(); n > 0 {
		t.Errorf("%d requests still have a turn", n)
	}
}

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	r, s := newTest(spooling(t, dir))
	value := strings.Repeat("large ", 2<<20)
	event := `{"name":"a","properties":{"v":"` + value + `","n":1}}`
	small := `{"name":"b"}` + "\n"
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	io.WriteString(z, event)
	z.Close()
	for _, c := range []struct {
		name string
		req  *http.Request
	}{
		{"length known", post("/v1/events", event)},
		{"chunked", intake.PostReader("/v1/events", io.MultiReader(strings.NewReader(event)))},
		{"compressed", post("/v1/events", packed.String(), "Content-Encoding", "gzip")},
		{"of another product", post("/v1/track", `{"event":"a","properties":{"v":"`+value+`","n":1}}`)},
		{"read again for its answer", post("/api/public/ingestion", `{"batch":[{"id":"i","type":"trace-create","timestamp":"2026-11-22T03:45:12.345Z","body":{"id":"t","input":"`+value+`"}}]}`)},
		{"among small ones", post("/v1/events", small+event+"\n"+small, "Content-Type", "application/x-ndjson")},
	} {
		s.Events, s.Blobs = nil, nil
		w := httptest.NewRecorder()
		r.ServeHTTP(w, withKey(c.req))
		if w.Code/100 != 2 || len(s.Blobs) != 1 || string(s.Blobs[0].Data) != value {
			t.Errorf("%s: %d %.200s, %d blobs", c.name, w.Code, w.Body, len(s.Blobs))
		}
		idle(t, r, dir)
	}
}

// An event beyond the limit fails alone, with its bytes.
func TestLargeEventFailsAlone(t *testing.T) {
	dir := t.TempDir()
	r, s := newTest(spooling(t, dir))
	event := `{"name":"a","v":"` + strings.Repeat("v", 33<<20) + `"}`
	a := serve(t, r, withKey(post("/v1/events", `[{"name":"b"},`+event+`,{"name":"c"}]`)))
	if a.Accepted != 2 || a.Codes() != "1:event_too_large" || !strings.Contains(a.Errors[0].Message, fmt.Sprint(32<<20)) {
		t.Errorf("%+v %s", a, a.Codes())
	}
	if s.Names() != "b c" || len(s.Failures) != 1 || string(s.Failures[0].Raw) != event {
		t.Errorf("events %s, %d failures", s.Names(), len(s.Failures))
	}
	idle(t, r, dir)
}

func TestSpoolIsFull(t *testing.T) {
	dir := t.TempDir()
	r, s := newTest(func(o *Options) {
		spooling(t, dir)(o)
		o.MaxSpool = 4 << 20
	})
	body := `{"name":"a","v":"` + strings.Repeat("v", 5<<20) + `"}`
	if a := serve(t, r, withKey(post("/v1/events", body))); a.Status != 503 || a.Codes() != "busy" || a.Header.Get("Retry-After") == "" {
		t.Errorf("%+v", a)
	}
	idle(t, r, dir)
	if a := serve(t, r, withKey(post("/v1/events", `{"name":"a","v":"`+strings.Repeat("v", 3<<20)+`"}`))); a.Accepted != 1 || len(s.Blobs) != 1 {
		t.Errorf("%+v", a)
	}
	r, _ = newTest(func(o *Options) {
		spooling(t, dir)(o)
		o.SpoolDir = dir + "/none"
	})
	if a := serve(t, r, withKey(post("/v1/events", body))); a.Status != 503 {
		t.Errorf("without a folder: %+v", a)
	}
	// Rows have their own limit: they are in memory.
	r, s = newTest(func(o *Options) {
		spooling(t, dir)(o)
		o.MaxBody, o.MaxDecoded, o.MaxEvents = 128<<20, 128<<20, 10000
	})
	line := `{"name":"a","v":"` + strings.Repeat("v", 60<<10) + `"}` + "\n"
	if a := serve(t, r, withKey(post("/v1/events", strings.Repeat(line, 1500)))); a.Status != 413 || a.Codes() != "too_much" || len(s.Events) != 0 {
		t.Errorf("%d %s", a.Status, a.Codes())
	}
	idle(t, r, dir)
}

// A large body may take longer than the timeout while it comes; one that stalls
// is cut, and others are served meanwhile.
func TestSlowAndStalled(t *testing.T) {
	dir := t.TempDir()
	r, s := newTest(func(o *Options) {
		spooling(t, dir)(o)
		o.ReadTimeout = 400 * time.Millisecond
	})
	server := httptest.NewServer(r)
	defer server.Close()
	send := func(parts int, end bool) (int, string) {
		in, out := io.Pipe()
		go func() {
			io.WriteString(out, `{"name":"a","v":"`+strings.Repeat("v", 2<<20))
			for range parts {
				time.Sleep(200 * time.Millisecond) // a slow client
				if _, err := out.Write(bytes.Repeat([]byte("v"), 300<<10)); err != nil {
					return
				}
			}
			if end {
				io.WriteString(out, `"}`)
				out.Close()
			}
		}()
		defer in.Close()
		resp, err := http.Post(server.URL+"/v1/events?key="+key, "application/json", in)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	var g sync.WaitGroup
	g.Go(func() {
		if status, text := send(6, true); status != 202 {
			t.Errorf("slow: %d %s", status, text)
		}
	})
	g.Go(func() {
		if status, text := send(1, false); status != 408 {
			t.Errorf("stalled: %d %s", status, text)
		}
	})
	for range 5 {
		if a := serve(t, r, withKey(post("/v1/events", `{"name":"b"}`))); a.Accepted != 1 {
			t.Errorf("beside it: %+v", a)
		}
	}
	g.Wait()
	server.Close() // and wait for its work after the answers
	if len(s.Blobs) != 1 || len(s.Blobs[0].Data) != 2<<20+6*300<<10 {
		t.Errorf("%d blobs", len(s.Blobs))
	}
	idle(t, r, dir)
}

// A large request that waits for the bucket does not delay checks of others, and its failures are still reported
// afterwards.
func TestLargeRequestWaitsForBucket(t *testing.T) {
	dir := t.TempDir()
	r, s := newTest(spooling(t, dir))
	arrived, release := make(chan bool, 2), make(chan struct{})
	s.OnWait = func() { arrived <- true; <-release }
	refused := `{"v":"` + strings.Repeat("v", 2<<20) + `"}`
	body := `{"name":"a","v":"` + strings.Repeat("v", 2<<20) + `"}` + "\n" + refused
	answers := make(chan answer)
	for range cap(arrived) {
		go func() {
			answers <- serve(t, r, withKey(post("/v1/events?durability=object", body, "Content-Type", "application/x-ndjson")))
		}()
	}
	for range cap(arrived) {
		select {
		case <-arrived:
		case <-time.After(20 * time.Second):
			t.Error("one that waits for the bucket keeps another from being judged")
		}
	}
	close(release)
	for range cap(arrived) {
		if a := <-answers; a.Accepted != 1 || a.Rejected != 1 {
			t.Errorf("got %+v", a)
		}
	}
	for _, f := range s.Failures {
		if string(f.Raw) != refused {
			t.Errorf("%d bytes are reported, want %d", len(f.Raw), len(refused))
		}
	}
	if len(s.Failures) != cap(arrived) {
		t.Errorf("%d failures", len(s.Failures))
	}
	idle(t, r, dir)
}

// A report about a large body waits for its turn. Its answer does not.
func TestAnswerDoesNotWaitForReport(t *testing.T) {
	dir := t.TempDir()
	r, s := newTest(spooling(t, dir))
	other := hold(t, r, 0)
	s.OnWait = func() { // another one is being checked
		if _, err := other.Spool(); err != nil || other.Turn(t.Context(), 0) != nil {
			t.Error("the other one has no turn")
		}
	}
	server := httptest.NewServer(r)
	refused := `{"v":"` + strings.Repeat("v", 2<<20) + `"}`
	req, err := http.NewRequest("POST", server.URL+"/v1/events", strings.NewReader(`{"name":"a","v":1}`+"\n"+refused))
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: 20 * time.Second}
	res, err := client.Do(withKey(req))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 202 || !strings.Contains(string(text), `"rejected":1`) {
		t.Errorf("%d %s, %v", res.StatusCode, text, err)
	}
	s.Mu.Lock()
	if len(s.Failures) > 0 {
		t.Error("it was reported while another one was judged")
	}
	s.Mu.Unlock()
	other.Close()
	server.Close()
	if len(s.Failures) != 1 || string(s.Failures[0].Raw) != refused {
		t.Errorf("%d failures", len(s.Failures))
	}
	idle(t, r, dir)
}

// A request that waits for the bucket holds its body and little else.
func TestLetGo(t *testing.T) {
	const body = 1 << 20
	for _, c := range []struct {
		name       string
		large      bool // else medium
		rejects    int
		violations int
		rereads    bool
		gone       bool
		memory     int64
	}{
		{"large", true, 0, 0, false, true, 0},
		{"large, one refused", true, 1, 0, false, true, rejectRoom},
		{"large, many refused", true, 1000, 0, false, false, 0},
		{"large, one reported with its event", true, 0, 1, false, false, 0},
		{"large, read again for its answer", true, 0, 0, true, false, 0},
		{"medium", false, 0, 0, false, true, body},
		{"medium, one refused", false, 1, 0, false, true, body + rejectRoom},
		{"medium, many refused", false, 5000, 0, false, false, body},
		{"medium, one reported with its event", false, 0, 1, false, false, body},
	} {
		r, _ := newTest(nil)
		q := r.begin(time.Now())
		q.key.Project = "a"
		q.lease.Known()
		q.route = &protocol.Route{RereadBody: c.rereads}
		if c.large {
			if _, err := q.lease.Spool(); err != nil { // its body is not in memory
				t.Fatal(err)
			}
		} else {
			q.body = make([]byte, body)
			if err := q.lease.Resize(body); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.lease.Turn(t.Context(), len(q.body)); err != nil {
			t.Fatal(err)
		}
		q.events, q.rows.Buf = make([]pipeline.Event, 50_000), make([]byte, body)
		q.rejects, q.violations = make([]protocol.Reject, c.rejects), make([]violation, c.violations)
		if err := q.lease.Grow(12 << 20); err != nil {
			t.Fatal(err)
		}
		q.letGo()
		if gone := q.lease.Class() == admission.Small; gone != c.gone || r.admission.Memory() != c.memory {
			t.Errorf("%s: its place is given back: %v; %d bytes are counted, want %d", c.name, gone, r.admission.Memory(), c.memory)
		}
		if c.gone && (q.events != nil || q.rows.Buf != nil) {
			t.Errorf("%s: it keeps what was made of its body", c.name)
		}
		r.end(q)
		if r.admission.Memory() != 0 || r.admission.Turns() != 0 {
			t.Errorf("%s: %d bytes are left", c.name, r.admission.Memory())
		}
	}
}

// A client that sends but never reads is disconnected eventually. Until then it does not delay checks of other bodies.
func TestAnswerIsNotRead(t *testing.T) {
	for _, size := range []int{100, 12 << 10} { // of a refused event: medium and large bodies
		dir := t.TempDir()
		r, _ := newTest(func(o *Options) {
			spooling(t, dir)(o)
			o.ReadTimeout = 4 * time.Second
		})
		cut := make(chan bool, runtime.GOMAXPROCS(0))
		server := httptest.NewUnstartedServer(r)
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				cut <- true
			}
		}
		server.Start()
		body := strings.Repeat(`{"name":"`+strings.Repeat("n", 600+size)+`"}`+"\n", 150)
		text := fmt.Sprintf("POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", key, len(body), body)
		blocked := make(chan bool)
		for range cap(cut) {
			c, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.(*net.TCPConn).SetReadBuffer(4 << 10)
			go func() {
				var err error
				for err == nil {
					c.SetWriteDeadline(time.Now().Add(time.Second))
					_, err = io.WriteString(c, text)
				}
				blocked <- errors.Is(err, os.ErrDeadlineExceeded)
			}()
		}
		for range cap(cut) {
			if !<-blocked {
				t.Error("the client could go on, or was cut off at once")
			}
		}
		for _, value := range []int{70 << 10, 2 << 20} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if a := serve(t, r, withKey(post("/v1/events", `{"name":"a","v":"`+strings.Repeat("v", value)+`"}`)).WithContext(ctx)); a.Accepted != 1 {
				t.Errorf("%d bytes beside those who do not read: %+v", value, a)
			}
			cancel()
		}
		for range cap(cut) {
			select {
			case <-cut:
			case <-time.After(20 * time.Second):
				t.Error("a client that does not read is not cut off")
			}
		}
		server.Close()
		idle(t, r, dir)
	}
}
