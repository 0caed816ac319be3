package tracing

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/spans"
)

const key = "events/dt=2026-11-22/hr=03/20261122T034512.345Z-game1-17.parquet"

// memory is an exporter that may fail.
type memory struct {
	spans.Memory
	mu    sync.Mutex
	err   error         // of each export
	hold  chan struct{} // exports wait until it is closed; nil: they do not
	tries int
}

func (m *memory) ExportSpans(ctx context.Context, all []sdktrace.ReadOnlySpan) error {
	m.mu.Lock()
	err, hold := m.err, m.hold
	m.tries++
	m.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	return m.Memory.ExportSpans(ctx, all)
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// rig is a tracer whose spans stay in memory.
type rig struct {
	*Tracer
	to  *memory
	reg *prometheus.Registry
	log *logs
}

// logs keeps all lines.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func start(t *testing.T, to *memory) *rig {
	t.Helper()
	to.Memory = spans.NewMemory()
	r := &rig{to: to, reg: prometheus.NewRegistry(), log: &logs{}}
	tracer, err := New(Options{Enabled: true, Exporter: to, Service: "test", Requests: 1, ClientRequests: 1},
		slog.New(slog.NewTextHandler(r.log, nil)), r.reg)
	if err != nil {
		t.Fatal(err)
	}
	r.Tracer = tracer
	return r
}

// count is the number of spans with a result.
func (r *rig) count(t *testing.T, result string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].Metric {
		if m.Label[0].GetValue() == result {
			return m.Counter.GetValue()
		}
	}
	t.Fatalf("no series %s", result)
	return 0
}

// An operator finds an object's trace by its key, with sha256sum or ClickHouse's SHA256().
func TestObjectTrace(t *testing.T) {
	sum := sha256.Sum256([]byte(key))
	if got, want := ObjectTrace(key), fmt.Sprintf("%x", sum[:16]); got != want {
		t.Errorf("trace ID %s, want %s", got, want)
	}
}

// Two processes that know only the key write one trace, below one root span.
func TestOneTraceOfAnObject(t *testing.T) {
	receiver, loader := start(t, &memory{}), start(t, &memory{})
	now := time.Now()
	ctx := receiver.Object(t.Context(), key)
	receiver.Record(ctx, "batch", now.Add(-time.Minute), now, nil, "rows", 5)
	receiver.Root(key, now.Add(-time.Minute), now, "pipeline", "events")
	receiver.Close()
	ctx, load := loader.Start(loader.Object(t.Context(), key), "load", "attempt", uint32(2))
	_, fetch := loader.Start(ctx, "fetch")
	fetch.End(errors.New("cut off"))
	load.Set("state", "failed")
	load.End(nil)
	loader.Close()

	all := append(receiver.to.Spans(), loader.to.Spans()...)
	byName := map[string]spans.Span{}
	for _, s := range all {
		if s.Trace != ObjectTrace(key) {
			t.Errorf("%s is in the trace %s", s.Name, s.Trace)
		}
		byName[s.Name] = s
	}
	root := byName["object"]
	for name, parent := range map[string]string{"object": "", "batch": root.ID, "load": root.ID,
		"fetch": byName["load"].ID} {
		if got := byName[name].Parent; got != parent || byName[name].ID == "" {
			t.Errorf("%s has the ID %q and the parent %q, want %q", name, byName[name].ID, got, parent)
		}
	}
	if got := byName["fetch"].Error; got != "cut off" {
		t.Errorf("status of fetch %q", got)
	}
	want := map[string]any{"penstock.attempt": int64(2), "penstock.state": "failed"}
	if diff := cmp.Diff(want, byName["load"].Attributes); diff != "" {
		t.Errorf("attributes of load (-want +got):\n%s", diff)
	}
	if got := byName["batch"].End.Sub(byName["batch"].Start); got != time.Minute {
		t.Errorf("batch took %s", got)
	}
}

// An object that Penstock did not store has no root span. Its spans are in one trace all the same.
func TestTraceOfAnImport(t *testing.T) {
	r := start(t, &memory{})
	for range 2 {
		ctx, load := r.Start(r.Object(t.Context(), "events/imports/a.csv"), "load")
		_, fetch := r.Start(ctx, "fetch")
		fetch.End(nil)
		load.End(nil)
	}
	r.Close()
	ids := map[string]bool{}
	for _, s := range r.to.Spans() {
		ids[s.ID] = true
		if s.Trace != ObjectTrace("events/imports/a.csv") || (s.Parent == "") != (s.Name == "load") {
			t.Errorf("%s: trace %s, parent %q", s.Name, s.Trace, s.Parent)
		}
	}
	if len(ids) != 4 {
		t.Errorf("%d spans, want 4", len(ids))
	}
}

// A process that does not trace has no tracer, and its stages need not ask.
func TestOff(t *testing.T) {
	reg := prometheus.NewRegistry()
	tracer, err := New(Options{}, slog.New(slog.DiscardHandler), reg)
	if tracer != nil || err != nil {
		t.Fatalf("got %v, %v", tracer, err)
	}
	r := rig{reg: reg}
	if got := r.count(t, "sent"); got != 0 {
		t.Errorf("sent %v", got)
	}
	head := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	ctx := t.Context()
	allocs := testing.AllocsPerRun(100, func() {
		if tracer.Sample(head, time.Time{}) != nil {
			t.Fatal("traced")
		}
		ctx, span := tracer.Start(tracer.Object(ctx, key), "load")
		tracer.Record(ctx, "batch", time.Time{}, time.Time{}, nil)
		span.End(nil)
	})
	if allocs != 0 {
		t.Errorf("%v allocations while tracing is off", allocs)
	}
	tracer.Close()
}

// If the collector is slow, spans are dropped and counted. Nobody waits.
func TestQueueIsBounded(t *testing.T) {
	hold := make(chan struct{})
	r := start(t, &memory{hold: hold})
	const n = 2 * maxSpans
	for range n {
		_, span := r.Start(t.Context(), "a")
		span.End(nil)
	}
	dropped := r.count(t, "dropped")
	if dropped < n-maxSpans-1 || dropped > n-1 {
		t.Errorf("%v of %d spans dropped, %d fit", dropped, n, maxSpans)
	}
	close(hold)
	r.Close()
	if sent := r.count(t, "sent"); sent+dropped != n || len(r.to.Spans()) != int(sent) {
		t.Errorf("sent %v, dropped %v, want %d; the collector has %d", sent, dropped, n, len(r.to.Spans()))
	}
}

// An outage of the collector is logged when it begins and when it ends. A short one costs no span.
func TestOutage(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		away := &url.Error{Op: "Post", URL: "http://collector", Err: syscall.ECONNREFUSED}
		r := start(t, &memory{err: away})
		make := func() {
			_, span := r.Start(t.Context(), "a")
			span.End(nil)
		}
		make()
		time.Sleep(20 * time.Second)
		r.to.fail(nil)
		time.Sleep(10 * time.Second)
		if sent := r.count(t, "sent"); sent != 1 {
			t.Errorf("sent %v after a short outage, want 1", sent)
		}
		r.to.fail(away)
		for range 10 {
			make()
			time.Sleep(5 * time.Second)
		}
		time.Sleep(time.Minute)
		r.to.fail(nil)
		make()
		time.Sleep(10 * time.Second)
		r.Close()
		sent, failed := r.count(t, "sent"), r.count(t, "failed")
		if sent+failed != 12 || failed == 0 || sent < 2 {
			t.Errorf("sent %v, failed %v, want 12 together", sent, failed)
		}
		text := r.log.String()
		starts, ends := strings.Count(text, `msg="collector of traces unavailable`),
			strings.Count(text, `msg="collector of traces available again`)
		if starts != 2 || ends != 2 || strings.Count(text, "\n") > 6 {
			t.Errorf("%d lines of starts, %d of ends, want 2 each, and few others:\n%s", starts, ends, text)
		}
	})
}

// What the collector refuses is not sent again.
func TestRefused(t *testing.T) {
	r := start(t, &memory{err: errors.New("400 Bad Request")})
	_, span := r.Start(t.Context(), "a")
	span.End(nil)
	r.Close()
	if r.to.tries != 1 || r.count(t, "failed") != 1 {
		t.Errorf("%d attempts, %v failed, want 1 each", r.to.tries, r.count(t, "failed"))
	}
}

// A collector that does not answer delays the end of a process by some seconds at most.
func TestCloseDoesNotWaitLong(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := start(t, &memory{hold: make(chan struct{})})
		for range 3 {
			_, span := r.Start(t.Context(), "a")
			span.End(nil)
		}
		began := time.Now()
		r.Close()
		if took := time.Since(began); took != flushWait {
			t.Errorf("Close took %s, want %s", took, flushWait)
		}
		if failed := r.count(t, "failed"); failed != 3 || !strings.Contains(r.log.String(), "spans=3") {
			t.Errorf("%v failed, want 3; log:\n%s", failed, r.log)
		}
		synctest.Wait()
		time.Sleep(time.Minute) // until the SDK gives up, too
	})
}

// The client's bytes cannot make the collector refuse a batch of spans.
func TestTextIsValid(t *testing.T) {
	r := start(t, &memory{})
	_, span := r.Start(t.Context(), "a", "project", "a\xffb", "long", strings.Repeat("ä", maxText))
	span.End(errors.New("bad \xfe"))
	r.Close()
	got := r.to.Spans()[0]
	if got.Error != "bad \uFFFD" || got.Attributes["penstock.project"] != "a\uFFFDb" ||
		len(got.Attributes["penstock.long"].(string)) != maxText {
		t.Errorf("got %+v", got)
	}
}
