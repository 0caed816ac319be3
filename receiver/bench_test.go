package receiver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/traffic"
)

type discard struct{}

func (d discard) Append(context.Context, []pipeline.Event, []pipeline.Blob, pipeline.Durability) (pipeline.Ticket,
	error) {
	return d, nil
}
func (discard) Wait(context.Context) (string, error) { return "", nil }
func (discard) Key(context.Context) string           { return "" }
func (discard) Report(pipeline.Failure)              {}
func (discard) Drop(string)                          {}

// quiet is a ResponseWriter that takes nothing.
type quiet struct {
	header http.Header
	status int
}

func (w *quiet) SetReadDeadline(time.Time) error  { return nil }
func (w *quiet) SetWriteDeadline(time.Time) error { return nil }

func (w *quiet) Header() http.Header         { return w.header }
func (w *quiet) Write(b []byte) (int, error) { return len(b), nil }
func (w *quiet) WriteHeader(status int)      { w.status = status }

// Allocations are for a request, never for a single event. The race detector empties pools at random, so a few are
// allowed.
func TestNoAllocationAnEvent(t *testing.T) {
	allocs := func(events int) float64 {
		r := must(New(options(), discard{}, discard{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()))
		g := traffic.New("alloc", 1)
		var body []byte
		for range events {
			body = append(g.Append(body), '\n')
		}
		reader := bytes.NewReader(nil)
		req := httptest.NewRequest("POST", "/v1/events", nil)
		req.Body, req.ContentLength = io.NopCloser(reader), int64(len(body))
		req.Header = http.Header{"Authorization": {"Bearer " + key}, "Content-Type": {ndjson}}
		w := &quiet{header: http.Header{}}
		return testing.AllocsPerRun(200, func() {
			reader.Reset(body)
			clear(w.header)
			if r.ServeHTTP(w, req); w.status != 202 {
				t.Fatal(w.status)
			}
		})
	}
	one, hundred := allocs(1), allocs(101)
	if each := (hundred - one) / 100; each > 0.1 {
		t.Errorf("%.2f allocations an event: %.0f for a request of one, %.0f for 101", each, one, hundred)
	}
}

func BenchmarkServeHTTP(b *testing.B) {
	flat := `{"event_id":"0193b3f0-7b5a-7cde-8f01-23456789abcd","name":"level_up","timestamp":1795319112345,"session_id":"s-81723","user_id":"u-1827381","level":17,"class":"mage","gold":1827.5,"position":{"x":1.5,"y":22.75,"map":"dunes"},"items":["sword","shield","potion"],"build":"1.22.3","platform":"ios"}`
	nested := `{"event_id":"0193b3f0-7b5a-7cde-8f01-23456789abcd","name":"level_up","timestamp":"2026-11-22T03:45:12.345Z","session_id":"s-81723","user_id":"u-1827381","properties":{"level":17,"class":"mage","gold":1827.5,"position":{"x":1.5,"y":22.75,"map":"dunes"},"items":["sword","shield","potion"],"build":"1.22.3","platform":"ios"}}`
	noID := `{"name":"level_up","properties":{"level":17,"class":"mage","gold":1827.5}}`
	for _, c := range []struct {
		name, event string
		events      int
		encode      func([]byte) []byte
		encoding    string
	}{
		{"one/flat", flat, 1, nil, ""},
		{"one/nested", nested, 1, nil, ""},
		{"one/no id", noID, 1, nil, ""},
		{"100/flat", flat, 100, nil, ""},
		{"100/nested", nested, 100, nil, ""},
		{"100/no id", noID, 100, nil, ""},
		{"100/nested gzip", nested, 100, gzipped, "gzip"},
		{"100/nested zstd", nested, 100, zstded, "zstd"},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := must(New(options(), discard{}, discard{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()))
			body := bytes.Repeat([]byte(c.event+"\n"), c.events)
			size := len(body)
			if c.encode != nil {
				body = c.encode(body)
			}
			reader := bytes.NewReader(body)
			target, _ := url.Parse("/v1/events")
			req := httptest.NewRequest("POST", "/v1/events", nil)
			req.URL, req.Body, req.ContentLength = target, io.NopCloser(reader), int64(len(body))
			req.Header = http.Header{"Authorization": {"Bearer " + key}, "Content-Type": {ndjson},
				"User-Agent": {"Mozilla/5.0 (X11; Linux x86_64)"}}
			if c.encoding != "" {
				req.Header.Set("Content-Encoding", c.encoding)
			}
			w := &quiet{header: http.Header{}}
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				reader.Reset(body)
				clear(w.header)
				r.ServeHTTP(w, req)
				if w.status != 202 {
					b.Fatal(fmt.Sprint(w.status))
				}
			}
		})
	}
}

// BenchmarkServer measures a request of one event from its bytes on a connection to its answer, the client's part
// included. "empty" is a handler that only reads the body. Other work on the machine changes cpu-ns/op less than ns/op.
func BenchmarkServer(b *testing.B) {
	event := string(traffic.New("server", 1).Append(nil))
	text := []byte("POST /v1/events HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: " +
		strconv.Itoa(len(event)) + "\r\nAuthorization: Bearer " + key + "\r\nContent-Type: application/x-ndjson\r\n" +
		"Accept-Encoding: gzip\r\n\r\n" + event)
	b.Run("empty", func(b *testing.B) {
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Write([]byte(`{"accepted":1,"rejected":0,"request_id":"0000000000000000"}` + "\n"))
		})}
		benchmarkServer(b, s, must(net.Listen("tcp", "127.0.0.1:0")), text)
	})
	b.Run("receiver", func(b *testing.B) {
		r := must(New(options(), discard{}, discard{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry()))
		s := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
		benchmarkServer(b, s, r.Attach(s, must(net.Listen("tcp", "127.0.0.1:0"))), text)
	})
}

func benchmarkServer(b *testing.B, s *http.Server, l net.Listener, request []byte) {
	go s.Serve(l)
	defer s.Close()
	c := must(net.Dial("tcp", l.Addr().String()))
	defer c.Close()
	answers := bufio.NewReader(c)
	b.ReportAllocs()
	var began, ended syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &began)
	for b.Loop() {
		c.Write(request)
		for line := []byte(nil); len(line) == 0 || line[0] != '{'; { // the answer's last line
			var err error
			if line, err = answers.ReadSlice('\n'); err != nil {
				b.Fatal(err)
			}
		}
	}
	syscall.Getrusage(syscall.RUSAGE_SELF, &ended)
	cpu := ended.Utime.Nano() + ended.Stime.Nano() - began.Utime.Nano() - began.Stime.Nano()
	b.ReportMetric(float64(cpu)/float64(b.N), "cpu-ns/op")
}
