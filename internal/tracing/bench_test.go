package tracing

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a traced request costs until its span is with the collector, the collector's part included.
func BenchmarkRequest(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
	}))
	defer server.Close()
	tracer, err := New(Options{Enabled: true, Endpoint: server.URL, Requests: 1, ClientRequests: 1},
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		now := time.Now()
		q := tracer.Sample(http.Header{}, now)
		q.Read, q.Appended, q.Stored, q.Ended = now, now, now, now
		q.Method, q.Route, q.Protocol, q.Project, q.ID = "POST", "/v1/events", "penstock", "game", "7b4b46fb84119455"
		q.Durability, q.Status, q.Accepted, q.Ticket = "disk", 202, 5, ticket(key)
		tracer.write(q, key, true) // at once: the queue would drop what is too fast
		for tracer.exporter.waiting.Load() > maxSpans/2 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	tracer.Close()
}
