package receiver

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
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

// bodyKeyPaths are the paths whose key may be in the body, of all protocols.
func bodyKeyPaths() (paths []string) {
	router := must(newRouter(&Options{}))
	for _, path := range slices.Sorted(slices.Values(router.Paths())) {
		route := router.Find(path, nil)
		_, finds := route.Protocol.(protocol.KeyFinder)
		if finds && !route.Query && slices.Contains(route.Allowed(), http.MethodPost) {
			paths = append(paths, path)
		}
	}
	return paths
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// endless is a body without an end. It counts the bytes read.
type endless struct{ n int64 }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.n += int64(len(p))
	return len(p), nil
}

// ask returns the status of the answer, and the answer: each protocol has its own.
func ask(h http.Handler, req *http.Request) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

// broken is a body whose client leaves.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// A stranger's failure is charged, whatever the rejection.
func TestEachRefusalOfAStrangerIsCharged(t *testing.T) {
	for _, path := range bodyKeyPaths() {
		for _, c := range []struct {
			name, encoding string
			body           func() io.Reader
			status         int
		}{
			{"noise as gzip", "gzip", func() io.Reader { return bytes.NewReader(noise(3000)) }, 400},
			{"noise as zstd", "zstd", func() io.Reader { return bytes.NewReader(noise(3000)) }, 400},
			{"more than a front of noise", "gzip", func() io.Reader { return bytes.NewReader(noise(100_000)) }, 400},
			{"a bomb", "gzip", func() io.Reader { return bytes.NewReader(gzipped(bytes.Repeat([]byte(" "), 1<<20))) }, 413},
			{"too large", "", func() io.Reader { return &endless{} }, 413},
			{"left", "", func() io.Reader { return broken{strings.NewReader(`{"batch":[`)} }, 400},
			{"no key", "", func() io.Reader { return strings.NewReader(`{"batch":[]}`) }, 401},
			{"wrong key", "", func() io.Reader { return strings.NewReader(`{"api_key":"x","writeKey":"x","event":"a"}`) }, 401},
		} {
			r, s := newTest(func(o *Options) { o.AnonymousRate, o.SmallBody = 0, 256<<10 })
			w := httptest.NewRecorder()
			r.ServeHTTP(w, intake.PostReader(path, c.body(), "Content-Encoding", c.encoding))
			if w.Code != c.status || len(s.Failures) != 0 || fmt.Sprint(s.Dropped) != "[anonymous]" {
				t.Errorf("%s, %s: %d %s, %d failures, dropped %v", path, c.name, w.Code, w.Body, len(s.Failures), s.Dropped)
			}
			if n := r.admission.Memory(); n != 0 || r.admission.Reading() != 0 {
				t.Errorf("%s, %s: %d bytes are charged, %d are being read", path, c.name, n, r.admission.Reading())
			}
		}
	}
}

// Strangers' stored bytes never exceed the budget, and their read bytes exceed it at most by the debt.
func TestStrangersStayWithinTheBudget(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const rate, small = 4 << 10, 256 << 10
		r, s := newTest(func(o *Options) { o.AnonymousRate, o.SmallBody = rate, small })
		var read int64
		for range 60 {
			for i := range 4 {
				ask(r, intake.PostReader("/2/httpapi", bytes.NewReader(noise(10_000)), "Content-Encoding", "gzip"))
				body := &endless{}
				var src io.Reader = io.LimitReader(body, 200_000)
				if i == 0 {
					src = body
				}
				ask(r, intake.PostReader("/2/httpapi", src))
				read += body.n
			}
			time.Sleep(time.Second)
		}
		kept := 0
		for _, f := range s.Failures {
			kept += len(f.Raw) + anonymousRecord
		}
		if most := rate * (admission.BudgetSeconds + 60); kept > most || kept == 0 {
			t.Errorf("%d bytes are kept in 60 s, the budget is %d", kept, most)
		}
		free := int64(60 * 4 * (2*admission.FrontBytes + strangerRead))
		if most := free + 2*small + admission.LowestRefill*60 + rate*admission.BudgetSeconds; read > most {
			t.Errorf("%d bytes were read, want %d at most", read, most)
		}
	})
}

// Headers that are stored with a failure come out of the budget as well.
func TestHeadersOfStrangersAreCharged(t *testing.T) {
	const rate, headerBytes = admission.LowestRefill, 4000
	value := func(i int) string { return fmt.Sprintf("%x", noise(headerBytes)[i:i+headerBytes/2]) }
	var cloud, kept []string
	for i := range 15 {
		cloud = append(cloud, fmt.Sprintf("Ce-Attribute%d", i), value(i))
	}
	for i, name := range append([]string{"User-Agent", "Content-Type"}, chosen...) {
		kept = append(kept, name, value(i))
	}
	for _, c := range []struct {
		name, path string
		header     []string
	}{
		{"attributes, key in the body", "/batch", cloud},
		{"attributes, wrong key", "/v1/events", append(cloud, "X-API-Key", "wrong")},
		{"headers, key in the body", "/v1/track", kept},
		{"headers, wrong key", "/v1/events", append(kept, "X-API-Key", "wrong")},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r, s := newTest(func(o *Options) { o.AnonymousRate = rate })
				for range 30 {
					for range 5 {
						ask(r, post(c.path, "[]", c.header...))
					}
					time.Sleep(time.Second)
				}
				got := 0
				for _, f := range s.Failures {
					got += len(f.Raw) + len(f.Path) + len(f.ContentType) + len(f.UserAgent)
					for _, h := range f.Headers {
						got += len(h.Name) + len(h.Value)
					}
				}
				if most := rate * (admission.BudgetSeconds + 30); got > most || got == 0 {
					t.Errorf("%d records have %d bytes, want %d at most", len(s.Failures), got, most)
				}
			})
		})
	}
}

// late is a body of n bytes whose key comes last.
func late(n int, key string) string {
	return `{"batch":[{"event":"a","distinct_id":"u","type":"track","userId":"u","properties":{"v":"` + strings.Repeat("v",
		n) +
		`"}}],"api_key":"` + key + `","writeKey":"` + key + `"}`
}

// early is one whose key comes first.
func early(n int, key string) string {
	return `{"api_key":"` + key + `","writeKey":"` + key +
		`","batch":[{"event":"a","distinct_id":"u","type":"track","userId":"u","properties":{"v":"` +
		strings.Repeat("v", n) + `"}}]}`
}

func left(r *Receiver) float64 { return r.admission.Budget.Left() }

func TestKeyInTheFront(t *testing.T) {
	const small = 256 << 10
	large := early(1<<20, key)
	noisy := `{"api_key":"` + key + `","batch":[{"event":"a","distinct_id":"u","properties":{"v":"` + fmt.Sprintf("%x",
		noise(300_000)) + `"}}]}`
	inEvent := `[{"event":"a","properties":{"distinct_id":"u","$lib":"web","token":"` + key + `","v":"` +
		strings.Repeat("v", 1<<20) + `"}}]`
	amplitude := `{"api_key":"` + key + `","events":[{"event_type":"a","user_id":"u","event_properties":{"v":"` +
		strings.Repeat("v", 1<<20) + `"}}]}`
	for _, c := range []struct {
		name, path, body, encoding string
	}{
		{"plain", "/batch", large, ""},
		{"compressed well", "/batch", string(gzipped([]byte(large))), "gzip"},
		{"compressed little", "/batch", string(gzipped([]byte(noisy))), "gzip"},
		{"by zstd", "/batch", string(zstded([]byte(large))), "zstd"},
		{"compressed and not said so", "/batch", string(gzipped([]byte(noisy))), ""},
		{"in the first event", "/e", inEvent, ""},
		{"amplitude", "/batch", amplitude, ""},
		{"amplitude's route", "/2/httpapi", amplitude, ""},
		{"segment", "/v1/b", large, ""},
	} {
		r, s := newTest(func(o *Options) { o.SmallBody, o.AnonymousRate = small, 0 })
		r.admission.Budget.Spend(1 << 40) // strangers have used all of it up
		before := left(r)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, post(c.path, c.body, "Content-Encoding", c.encoding))
		if w.Code != 200 || len(s.Events) != 1 || string(s.Events[0].Project) != "game" || string(s.Events[0].UserID) != "u" {
			t.Errorf("%s: %d %.300s, %d events", c.name, w.Code, w.Body, len(s.Events))
		}
		if got := left(r); got < before {
			t.Errorf("%s: the budget went from %f to %f", c.name, before, got)
		}
		if r.admission.Memory() != 0 || r.admission.Reading() != 0 {
			t.Errorf("%s: %d bytes are charged, %d are being read", c.name, r.admission.Memory(), r.admission.Reading())
		}
	}
}

// A key that comes late costs nothing in the end. Once strangers have used up the budget, only addresses that sent a
// known key before may send such bodies.
func TestKeyAtTheEnd(t *testing.T) {
	const small = 512 << 10
	r, s := newTest(func(o *Options) { o.SmallBody, o.AnonymousRate = small, 8<<10 })
	before := left(r)
	send := func(path, address, body string) int {
		req := post(path, body)
		req.RemoteAddr = address + ":1234"
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		return w.Code
	}
	body := late(300<<10, key)
	for _, path := range []string{"/batch", "/v1/b"} {
		if got := send(path, "192.0.2.1", body); got != 200 {
			t.Errorf("%s: %d", path, got)
		}
	}
	if got := left(r); got < before || len(s.Events) != 2 {
		t.Errorf("the budget went from %f to %f, %d events", before, got, len(s.Events))
	}
	for range 10 {
		send("/v1/b", "192.0.2.9", late(400<<10, "unknown"))
	}
	if got := left(r); got > 0 || got < -2*small {
		t.Errorf("after strangers: %f are left", got)
	}
	for _, c := range []struct {
		what, path, address, body string
		status                    int
	}{
		{"a new address", "/v1/b", "192.0.2.2", body, 429},
		{"one of PostHog, whose clients drop events on 429", "/capture", "192.0.2.2", body, 503},
		{"a small body", "/v1/b", "192.0.2.2", late(60<<10, key), 200},
		{"an address that is proven", "/v1/b", "192.0.2.1", body, 200},
		{"now the other one is, too", "/v1/b", "192.0.2.2", body, 200},
		{"larger than a stranger's", "/v1/b", "192.0.2.1", late(small, key), 413},
	} {
		if got := send(c.path, c.address, c.body); got != c.status {
			t.Errorf("%s: got %d, want %d", c.what, got, c.status)
		}
	}
	w := httptest.NewRecorder()
	req := post("/2/httpapi", strings.Repeat(" ", 400<<10))
	req.RemoteAddr = "192.0.2.3:1"
	r.ServeHTTP(w, req)
	if w.Code != 429 || w.Header().Get("Retry-After") != "3" || !strings.Contains(w.Body.String(), `"keyless_limit"`) {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
}

// A key that is found in the front of a body has its limits from there on.
func TestLimitsOfAKeyInTheFront(t *testing.T) {
	r, s := withProjects(t, func(o *Options) { o.SmallBody = 128 << 10 },
		Project{Bytes: Rate{PerSecond: 1 << 10, Burst: 100 << 10}},
		Key{Project: "small", Hash: HashKey("small"), Small: true},
		Key{Project: "stopped", Hash: HashKey("stopped"), ReadOnly: true})
	for _, c := range []struct {
		name, body string
		status     int
		code       string
		read       int64 // at most; 0: all
		raw        bool
	}{
		{"small", `{"api_key":"small","events":[`, 413, "body_too_large", 70 << 10, false},
		{"rate", `{"api_key":"` + keyFile + `","events":[`, 200, "", 0, false}, // larger than all of the burst: let through
		{"rate, again", `{"api_key":"` + keyFile + `","events":[`, 429, "rate_limited", 70 << 10, false},
		{"may not send", `{"api_key":"stopped","events":[`, 403, "write_not_allowed", 0, true},
	} {
		s.Events, s.Failures = nil, nil
		rest := &endless{}
		const size = 1 << 20
		end := `{"event_type":"a","user_id":"u"}]}`
		body := io.MultiReader(strings.NewReader(c.body), io.LimitReader(rest, size), strings.NewReader(end))
		req := intake.PostReader("/2/httpapi", body)
		req.ContentLength = int64(len(c.body) + size + len(end))
		status, text := ask(r, req)
		if status != c.status || !strings.Contains(text, c.code) || c.read > 0 && rest.n > c.read ||
			c.raw != (len(s.Failures) == 1 && len(s.Failures[0].Raw) > size) {
			t.Errorf("%s: %d %s, %d bytes were read, %d failures", c.name, status, text, rest.n, len(s.Failures))
		}
	}
}

func TestTwoKeysInOneBody(t *testing.T) {
	r, s := newTest(nil)
	body := `{"writeKey":"` + key + `","batch":[{"type":"track","event":"a","userId":"u","v":"` + strings.Repeat("v",
		100_000) + `"}],"writeKey":"` + keyDisk + `"}`
	status, text := ask(r, post("/v1/import", body))
	if status != 400 || !strings.Contains(text, `"duplicate_key"`) || len(s.Events) != 0 {
		t.Errorf("got %d %s", status, text)
	}
	if len(s.Failures) != 1 || s.Failures[0].Project != "game" || len(s.Failures[0].Raw) != len(body) {
		t.Errorf("%d failures", len(s.Failures))
	}
}

// An address may send only a limited number of bodies at once while their key is unknown.
func TestBodiesOfOneAddress(t *testing.T) {
	r, s := newTest(func(o *Options) { o.MaxKeyless = 2 })
	type pending struct {
		end  *io.PipeWriter
		done chan int
	}
	begin := func(address string) pending {
		in, out := io.Pipe()
		p := pending{out, make(chan int, 1)}
		req := intake.PostReader("/v1/track", in)
		req.RemoteAddr = address
		go func() {
			w := httptest.NewRecorder()
			r.ServeHTTP(w, req)
			p.done <- w.Code
		}()
		return p
	}
	var all []pending
	for _, address := range []string{"192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1", "[2001:db8::2]:1"} {
		p := begin(address)
		if _, err := io.WriteString(p.end, `{"event":"a","userId":"u",`); err != nil { // it is being read
			t.Fatal(err)
		}
		all = append(all, p)
	}
	for address, want := range map[string]int{"192.0.2.1:3": 429, "[2001:db8::3]:1": 429, "192.0.2.2:1": 200,
		"[2001:db8:0:1::1]:1": 200} {
		req := post("/v1/track", `{"event":"b","userId":"u","writeKey":"`+key+`"}`)
		req.RemoteAddr = address
		if status, text := ask(r, req); status != want {
			t.Errorf("%s: %d %s", address, status, text)
		}
		withHead := post("/v1/track?writeKey="+key, `{"event":"b","userId":"u"}`)
		withHead.RemoteAddr = address
		if status, text := ask(r, withHead); status != 200 {
			t.Errorf("%s with its key in the head: %d %s", address, status, text)
		}
	}
	for _, p := range all {
		io.WriteString(p.end, `"writeKey":"`+key+`"}`)
		p.end.Close()
		if got := <-p.done; got != 200 {
			t.Errorf("one that was being read: %d", got)
		}
	}
	if r.admission.Reading() != 0 || len(s.Failures) != 0 {
		t.Errorf("%d are being read, %d failures", r.admission.Reading(), len(s.Failures))
	}
}

// At the limit of an address, a new body replaces one that had a second for its key. So bodies that stall do not lock
// out other clients behind the same address.
func TestStalledBodiesOfOneAddressAreReplaced(t *testing.T) {
	r, s := newTest(func(o *Options) { o.MaxKeyless = 8 })
	server := httptest.NewServer(r)
	defer server.Close()
	for i := range 40 {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /capture HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n%s", strings.Repeat(" ", i%2))
	}
	time.Sleep(admission.Graceful + 200*time.Millisecond)
	for i := range 20 {
		body := `{"api_key":"` + key + `","event":"a","distinct_id":"u"}`
		resp, err := http.Post(server.URL+"/capture", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("request %d: got %d %s, want 200", i, resp.StatusCode, text)
		}
	}
	if len(s.Events) != 20 {
		t.Errorf("got %d events, want 20", len(s.Events))
	}
	server.CloseClientConnections()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		n := r.admission.Reading()
		if n == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d addresses are still being read", n)
		}
	}
}

// Strangers may use a quarter of the spool, even from proven addresses. Announcing a large body reserves nothing.
func TestStrangersOnDisk(t *testing.T) {
	dir := t.TempDir()
	r, _ := newTest(func(o *Options) {
		spooling(t, dir)(o)
		o.SmallBody, o.MaxSpool = 16<<20, 8<<20
	})
	if status, text := ask(r, post("/v1/b", late(100, key))); status != 200 { // its address is proven now
		t.Fatalf("%d %s", status, text)
	}
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"more than a quarter", late(3<<20, key), 503},
		{"less", late(1500<<10, key), 200},
		{"more, by a key in the front", early(3<<20, key), 200},
	} {
		if status, text := ask(r, post("/v1/b", c.body)); status != c.status {
			t.Errorf("%s: %d %s", c.name, status, text)
		}
	}
	idle(t, r, dir)

	in, out := io.Pipe()
	done := make(chan bool)
	req := intake.PostReader("/v1/b", in)
	req.ContentLength = 5 << 20
	go func() { ask(r, req); close(done) }()
	out.Write(make([]byte, 1000))
	if n, most := r.admission.Memory(), int64(2*smallBuffer+20<<10); r.admission.Spooled() != 0 || n > most {
		t.Errorf("after 1000 bytes: %d bytes of memory, want %d at most, %d on disk", n, most, r.admission.Spooled())
	}
	out.CloseWithError(io.ErrUnexpectedEOF)
	<-done
	idle(t, r, dir)
}

// The buffer through which a large body goes to disk is counted.
func TestSpoolBufferIsCounted(t *testing.T) {
	dir := t.TempDir()
	r, _ := newTest(func(o *Options) {
		spooling(t, dir)(o)
		o.MaxMemory = 3 * spoolPart
	})
	in, out := io.Pipe()
	done := make(chan bool)
	req := withKey(intake.PostReader("/v1/events", in))
	req.ContentLength = 5 << 20
	go func() { ask(r, req); close(done) }()
	out.Write(make([]byte, 1000))
	if n := r.admission.Memory(); n < spoolPart {
		t.Errorf("%d bytes are counted", n)
	}
	out.CloseWithError(io.ErrUnexpectedEOF)
	<-done
	idle(t, r, dir)
}

// At the limit of connections, customers' connections survive. A new one replaces a stranger's; if there is none, it is
// closed at once.
func TestMaxConnections(t *testing.T) {
	r, s := newTest(func(o *Options) { o.MaxConnections = 3 })
	server := httptest.NewUnstartedServer(r)
	server.Listener = r.Attach(server.Config, server.Listener)
	server.Start()
	defer server.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	send := func(c net.Conn, key string) string {
		fmt.Fprintf(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nContent-Length: %d\r\n\r\n%s", key, len(one),
			one)
		b := make([]byte, 12)
		if _, err := io.ReadFull(c, b); err != nil {
			return err.Error()
		}
		io.ReadAtLeast(c, make([]byte, 4096), 1) // the rest of a short answer
		return string(b[9:])
	}
	customers := []net.Conn{dial(), dial()}
	for _, c := range customers {
		if got := send(c, key); got != "202" {
			t.Fatal(got)
		}
	}
	stranger := dial()
	if got := send(stranger, "unknown"); got != "401" {
		t.Fatal(got)
	}
	if n, err := dial().Read(make([]byte, 1)); err == nil {
		t.Errorf("one too many got %d bytes", n)
	}
	time.Sleep(admission.Graceful) // the stranger's time to bring a key
	next := dial()
	if got := send(next, key); got != "202" {
		t.Errorf("in the stranger's place: %s", got)
	}
	if _, err := stranger.Read(make([]byte, 4096)); err == nil {
		_, err = stranger.Read(make([]byte, 1))
		if err == nil {
			t.Error("the stranger is still there")
		}
	}
	time.Sleep(admission.Graceful)
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("a fourth customer got in")
	}
	for _, c := range append(customers, next) {
		if got := send(c, key); got != "202" {
			t.Errorf("a customer's connection: %s", got)
		}
	}
	customers[0].Close()
	deadline := time.Now().Add(10 * time.Second)
	for got := ""; got != "202"; got = send(dial(), key) {
		if time.Now().After(deadline) {
			t.Fatalf("after one left: %s", got)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s.Names() == "" || s.Durability != pipeline.Disk {
		t.Error("nothing was taken")
	}
}
