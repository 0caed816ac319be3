// Package errorspipeline is the mirror: what was refused goes the same way as
// events, through a second Spec of the same batcher and loader. Only this is
// its own: the record of a failure as an event, and the Reporter that takes
// failures without ever making the events pipeline wait.
package errorspipeline

import (
	"context"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
)

// Appender takes events: a batcher of the errors pipeline.
type Appender interface {
	Append(ctx context.Context, events []pipeline.Event, d pipeline.Durability) (object string, err error)
}

// Reporter queues failures and appends them. It reports of itself only to the
// log and its counters.
type Reporter struct {
	appender Appender
	limit    int64 // bytes queued
	log      *slog.Logger
	reported *prometheus.CounterVec
	dropped  *prometheus.CounterVec

	mu     sync.Mutex
	queue  []pipeline.Failure
	queued int64
	wake   chan struct{}
}

// New makes a reporter that holds at most limit bytes of failures in memory.
func New(appender Appender, limit int64, log *slog.Logger, reg prometheus.Registerer) *Reporter {
	r := &Reporter{appender: appender, limit: limit, log: log, wake: make(chan struct{}, 1),
		reported: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_errors_reported_total",
			Help: "Failures taken into the errors pipeline, by code."}, []string{"code"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_errors_dropped_total",
			Help: "Failures that the errors pipeline had no room for, by reason."}, []string{"reason"}),
	}
	reg.MustRegister(r.reported, r.dropped)
	return r
}

// Report takes a failure. It never blocks: where there is no room the failure
// is dropped and counted.
func (r *Reporter) Report(f pipeline.Failure) {
	size := int64(len(f.Raw) + 512)
	r.mu.Lock()
	if r.queued+size > r.limit {
		r.mu.Unlock()
		r.dropped.WithLabelValues("memory").Inc()
		return
	}
	f.Raw = append([]byte(nil), f.Raw...)
	r.queue = append(r.queue, f)
	r.queued += size
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run appends what is reported until ctx ends, then what is still queued.
func (r *Reporter) Run(ctx context.Context) error {
	for {
		r.flush()
		select {
		case <-r.wake:
		case <-ctx.Done():
			r.flush()
			return nil
		}
	}
}

func (r *Reporter) flush() {
	r.mu.Lock()
	failures := r.queue
	r.queue = nil
	r.mu.Unlock()
	for i := range failures {
		f := &failures[i]
		// Not the caller's context: what is queued is to be kept, drain or not.
		_, err := r.appender.Append(context.Background(), []pipeline.Event{Event(f)}, pipeline.Memory)
		if err != nil {
			r.dropped.WithLabelValues("append").Inc()
			r.log.Warn("failure is not kept", "code", f.Code, "request_id", f.RequestID, "error", err)
		} else {
			r.reported.WithLabelValues(f.Code).Inc()
		}
		r.mu.Lock()
		r.queued -= int64(len(f.Raw) + 512)
		r.mu.Unlock()
	}
}
