package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/traffic"
)

// BenchmarkReceive measures what a million events cost the receiver, as fast as
// the machine goes: in requests of 100 to NDJSON objects in the bucket, by
// durability, and in requests of one, beside a net/http handler that reads the
// body and does nothing. Clients are plain connections with requests made
// beforehand, to leave the machine to the receiver.
//
//	go test -run '^$' -bench Receive -benchtime 1x -count 3 ./internal/e2e
func BenchmarkReceive(b *testing.B) {
	s := newStack(b)
	for _, c := range []struct {
		name                 string
		durability           string // empty: the handler that does nothing
		events, batch, conns int
	}{
		{"empty handler", "", 200_000, 1, 64},
		{"1 a request/memory", "memory", 200_000, 1, 64},
		{"100 a request/memory", "memory", 1_000_000, 100, 8},
		{"100 a request/disk", "disk", 1_000_000, 100, 8},
	} {
		b.Run(c.name, func(b *testing.B) {
			requests := rawRequests(c.batch)
			var cpu func() float64
			var stop func()
			url, stored := "", func() {}
			if c.durability == "" {
				url, cpu, stop = emptyHandler(b)
			} else {
				r := s.start(fmt.Sprintf("%s-%d", c.durability, time.Now().UnixNano()), "receive", "PENSTOCK_RECEIVER_DURABILITY="+c.durability,
					"PENSTOCK_BATCHER_ROLL_AGE=3s", "PENSTOCK_BATCHER_FORMAT=ndjson")
				url, stop = r.URL[len("http://"):], r.term
				cpu = func() float64 { return cpuSeconds(b, r.Pid) }
				stored = func() {
					eventually(b, time.Minute, "all are stored", func() error {
						if n := r.metric("penstock_batcher_object_rows_total{"); n < float64(c.events) {
							return fmt.Errorf("%v rows", n)
						}
						return nil
					})
				}
			}
			before, began := cpu(), time.Now()
			sendRaw(b, url, requests, c.events/c.batch, c.conns)
			took := time.Since(began)
			stored()
			b.ReportMetric((cpu()-before)/float64(c.events)*1e6, "cpu-s/M")
			b.ReportMetric(float64(c.events)/took.Seconds(), "events/s")
			stop()
		})
	}
}

// rawRequests are requests of batch events each, 100,000 different events in all.
func rawRequests(batch int) [][]byte {
	g := traffic.New("bench", 1)
	all := make([][]byte, 100_000/batch)
	for i := range all {
		var body []byte
		for range batch {
			body = append(g.Append(body), '\n')
		}
		all[i] = append(fmt.Appendf(nil, "POST /v1/events HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: application/x-ndjson\r\n\r\n", len(body), key), body...)
	}
	return all
}

// sendRaw sends n requests over conns connections, each with one at a time.
func sendRaw(t testing.TB, addr string, requests [][]byte, n, conns int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range conns {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			answer := make([]byte, 4<<10) // one comes whole, by one write
			for i := w; i < n; i += conns {
				c.Write(requests[i%len(requests)])
				if m, err := c.Read(answer); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 202")) {
					t.Errorf("%s, %v", answer[:m], err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// serveEmpty names the address at which this program is to be emptyHandler's process.
const serveEmpty = "PENSTOCK_E2E_EMPTY"

// emptyHandler starts a server of its own process, which reads bodies and does nothing.
func emptyHandler(t testing.TB) (addr string, cpu func() float64, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess(self, []string{self}, &os.ProcAttr{Env: append(os.Environ(), serveEmpty+"="+addr), Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the empty handler", func() error {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
	return addr, func() float64 { return cpuSeconds(t, p.Pid) }, func() { p.Kill(); p.Wait() }
}

func runEmptyHandler(addr string) error {
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusAccepted)
	}))
}
