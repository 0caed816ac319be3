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
)

// store keeps the names and properties of what is appended; block, if it is
// not nil, holds every Append until it is closed or the context ends.
type store struct {
	block chan struct{}
	err   error

	mu    sync.Mutex
	names []string
	props []string
}

func (s *store) Append(ctx context.Context, events []pipeline.Event, d pipeline.Durability) (string, error) {
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	if s.err != nil {
		return "", s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		s.names = append(s.names, string(e.Name))
		s.props = append(s.props, string(e.Properties))
	}
	return "errors/x", nil
}

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
	return New(a, limit, slog.New(slog.DiscardHandler), reg), reg
}

func TestReporterAppendsInOrderAndCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
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
		if r.queued > limit {
			t.Errorf("%d bytes are held, the limit is %d", r.queued, limit)
		}
		kept := len(r.queue)
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

func TestReporterFlushesAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
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
	synctest.Test(t, func(t *testing.T) {
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
