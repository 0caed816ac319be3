package errorspipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// store records the names and properties of appended events. If block is not nil, every Append waits until it is closed
// or the context ends.
type store struct {
	block chan struct{}
	err   error

	mu    sync.Mutex
	names []string
	props []string
	ids   []pipeline.UUID
	blobs []string
	d     pipeline.Durability // of the last
}

func (s *store) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
	d pipeline.Durability) (pipeline.Ticket, error) {
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.d = d
	for _, b := range blobs {
		var data strings.Builder
		if err := b.Write(&data); err != nil {
			return nil, err
		}
		if at := string(events[b.Event].Properties[b.At:]); !strings.HasPrefix(at, pipeline.BlobHole) {
			return nil, fmt.Errorf("no hole at %s", at)
		}
		s.blobs = append(s.blobs, data.String())
	}
	for _, e := range events {
		s.names = append(s.names, string(e.Name))
		s.props = append(s.props, string(e.Properties))
		s.ids = append(s.ids, e.ID)
	}
	return s, nil
}

func (s *store) Wait(context.Context) (string, error) { return "errors/x", nil }
func (s *store) Key(context.Context) string           { return "errors/x" }

// count is a counter's value, by the value of its one label.
func count(t *testing.T, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func newReporter(a Appender, limit int64) (*Reporter, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	return New(a, Options{Memory: limit, BlobThreshold: 1 << 20}, slog.New(slog.DiscardHandler), reg), reg
}

func TestReporterAppendsInOrderAndCopies(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := &store{}
		r, reg := newReporter(s, 1<<20)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		raw := []byte("first")
		r.Report(pipeline.Failure{Code: "a", Raw: raw})
		copy(raw, "XXXXX") // the caller's again
		synctest.Wait()
		r.Report(pipeline.Failure{Code: "b"})
		synctest.Wait()
		if got, want := fmt.Sprint(s.names), "[a b]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if !strings.Contains(s.props[0], `"raw":"first"`) {
			t.Errorf("the raw bytes were not copied: %s", s.props[0])
		}
		if r.queued != 0 {
			t.Errorf("%d bytes still counted", r.queued)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := count(t, reg, "penstock_errors_reported_total", "a"); got != 1 {
			t.Errorf("reported: got %v, want 1", got)
		}
	})
}

func TestReporterNeverBlocks(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := &store{block: make(chan struct{})}
		const limit = 10_000
		r, reg := newReporter(s, limit)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		began := time.Now()
		const reports = 1000
		for range reports {
			r.Report(pipeline.Failure{Code: "a", Raw: make([]byte, 488), UserAgent: strings.Repeat("u", 1000)})
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("Report waited %s", took)
		}
		r.mu.Lock()
		queued, kept := r.queued, len(r.queue)
		r.mu.Unlock()
		if queued > limit {
			t.Errorf("%d bytes are held, the limit is %d", queued, limit)
		}
		synctest.Wait()
		close(s.block)
		synctest.Wait()
		cancel()
		<-done
		if got, want := len(s.names), 5; got != want || kept > want {
			t.Errorf("kept: got %d, want %d", got, want)
		}
		if got := count(t, reg, "penstock_errors_dropped_total", "memory"); got != reports-5 {
			t.Errorf("dropped: got %v, want %v", got, reports-5)
		}
		r.Report(pipeline.Failure{Code: "late"})
		if got := count(t, reg, "penstock_errors_dropped_total", "stopped"); got != 1 {
			t.Errorf("dropped after the end: got %v, want 1", got)
		}
	})
}

// If there is no space for the bytes, the rest of the failure record is kept.
func TestReporterKeepsWhatIsKnown(t *testing.T) {
	r, reg := newReporter(&store{}, 4096)
	r.Report(pipeline.Failure{Code: "first"})
	r.Report(pipeline.Failure{Code: "large", Message: "why", Raw: make([]byte, 4096)})
	if len(r.queue) != 2 || r.queue[1].Code != "large" || r.queue[1].Raw != nil ||
		!strings.Contains(r.queue[1].Message, "why (its 4096 bytes are lost") {
		t.Errorf("queued %+v", r.queue)
	}
	if got := count(t, reg, "penstock_errors_dropped_total", "raw"); got != 1 {
		t.Errorf("counted %v times, want once", got)
	}
}

func TestReporterFlushesAtItsEnd(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := &store{}
		r, _ := newReporter(s, 1<<20)
		for i := range 100 {
			r.Report(pipeline.Failure{Code: fmt.Sprint(i)})
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // before it runs: all the same nothing is lost
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(s.names) != 100 || s.names[99] != "99" {
			t.Errorf("got %d of 100", len(s.names))
		}
	})
}

func TestReporterEndsThoughTheAppenderHangs(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, reg := newReporter(&store{block: make(chan struct{})}, 1<<20)
		r.Report(pipeline.Failure{Code: "a"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		r.Run(ctx)
		if took := time.Since(began); took > appendTimeout {
			t.Errorf("took %s", took)
		}
		if got := count(t, reg, "penstock_errors_dropped_total", "append"); got != 1 {
			t.Errorf("dropped: got %v, want 1", got)
		}
	})
}

func TestReporterCountsWhatIsNotAppended(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r, reg := newReporter(&store{err: errors.New("disk full")}, 1<<20)
		r.Report(pipeline.Failure{Code: "a"})
		r.Report(pipeline.Failure{Code: "a"})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r.Run(ctx)
		if got := count(t, reg, "penstock_errors_dropped_total", "append"); got != 2 {
			t.Errorf("dropped: got %v, want 2", got)
		}
		if r.queued != 0 {
			t.Errorf("%d bytes still counted", r.queued)
		}
	})
}

func TestLargeRawBecomesABlob(t *testing.T) {
	s := &store{}
	r := New(s, Options{Memory: 100, BlobThreshold: 10}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	id := pipeline.UUIDv5(nil, []byte("x"))
	// At once, and however little memory there is.
	r.Report(pipeline.Failure{Code: "beyond", Index: -1, Raw: []byte("0123456789a")})
	r.Report(pipeline.Failure{Code: "named", ID: id, Index: -1, Raw: []byte("0123456789b")})
	if fmt.Sprint(s.names, s.blobs) != "[beyond named] [0123456789a 0123456789b]" || s.ids[1] != id ||
		s.props[0] != `{"raw_bytes":11,"raw_blob":null}` {
		t.Errorf("%v, blobs %q, records %q", s.names, s.blobs, s.props)
	}
	r.Report(pipeline.Failure{Code: "at the limit", Index: -1, Raw: []byte("0123456789")})
	if len(s.names) != 2 {
		t.Error("a small one did not wait for Run")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Run(ctx)
	if len(s.names) != 3 || s.props[2] != `{"raw":"0123456789"}` || len(s.blobs) != 2 {
		t.Errorf("records %q", s.props)
	}
}

// If there is no space for the bytes, the rest of the failure record is kept.
func TestLargeRawFindsNoRoom(t *testing.T) {
	s := &store{err: errors.New("disk full")}
	reg := prometheus.NewRegistry()
	r := New(s, Options{Memory: 1 << 20, BlobThreshold: 10}, slog.New(slog.DiscardHandler), reg)
	r.Report(pipeline.Failure{Code: "beyond", Message: "m", Index: -1, Raw: []byte("0123456789a")})
	s.err = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Run(ctx)
	if len(s.props) != 1 || s.props[0] != `{"message":"m (its 11 bytes are lost: disk full)"}` {
		t.Errorf("records %q", s.props)
	}
	if got := count(t, reg, "penstock_errors_dropped_total", "raw"); got != 1 {
		t.Errorf("dropped: got %v, want 1", got)
	}
}

func TestKeep(t *testing.T) {
	s := &store{}
	r, reg := newReporter(s, 1)
	failures := []pipeline.Failure{{Code: "a", Index: -1, Raw: make([]byte, 100)}, {Code: "b", Index: -1},
		{Code: "a", Index: -1}}
	if err := r.Keep(t.Context(), failures); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(s.names); got != "[a b a]" || s.d != pipeline.Disk {
		t.Errorf("got %s, durability %s", got, s.d)
	}
	if got := count(t, reg, "penstock_errors_reported_total", "a"); got != 2 {
		t.Errorf("reported: got %v, want 2", got)
	}
	s.err = errors.New("disk full")
	if err := r.Keep(t.Context(), failures); !errors.Is(err, s.err) ||
		count(t, reg, "penstock_errors_dropped_total", "keep") != float64(len(failures)) {
		t.Errorf("got %v", err)
	}
	if got := count(t, reg, "penstock_errors_reported_total", "a"); got != 2 {
		t.Errorf("reported: got %v, want 2", got)
	}
}

// A failure that is larger than the limit passes alone: it never would else.
func TestLargestFailurePassesAlone(t *testing.T) {
	s := &store{}
	r, reg := newReporter(s, 1000)
	large := pipeline.Failure{Code: "large", Index: -1, Raw: make([]byte, 10_000)}
	r.Report(large)
	r.Report(large)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Run(ctx)
	if len(s.names) != 1 || count(t, reg, "penstock_errors_dropped_total", "memory") != 1 {
		t.Errorf("kept %v", s.names)
	}
}
