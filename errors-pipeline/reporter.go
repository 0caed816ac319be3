// Package errorspipeline is the mirror: what was refused goes the same way as
// events, through a second Spec of the same batcher and loader. Only this is
// its own: the record of a failure as an event, and the Reporter that takes
// failures without ever making the events pipeline wait.
package errorspipeline

import (
	"context"
	"log/slog"
	"sync"
	"time"

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

	mu      sync.Mutex
	queue   []pipeline.Failure
	queued  int64 // bytes, of what is being appended too
	stopped bool  // Run has ended: nobody would append
	wake    chan struct{}
}

// appendTimeout bounds one Append, so that a batcher that hangs cannot keep Run
// from ending.
const appendTimeout = 5 * time.Second

// size is about what a failure takes in memory, in bytes.
func size(f *pipeline.Failure) int64 {
	return int64(512 + len(f.Raw) + len(f.Message) + len(f.Path) + len(f.ContentType) + len(f.ContentEncoding) + len(f.UserAgent))
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
	r.mu.Lock()
	if reason := r.noRoom(&f); reason != "" {
		r.mu.Unlock()
		r.dropped.WithLabelValues(reason).Inc()
		return
	}
	f.Raw = append([]byte(nil), f.Raw...)
	r.queue = append(r.queue, f)
	r.queued += size(&f)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Reporter) noRoom(f *pipeline.Failure) (reason string) {
	switch {
	case r.stopped:
		return "stopped"
	case r.queued+size(f) > r.limit:
		return "memory"
	}
	return ""
}

// Run appends what is reported until ctx ends, then what is still queued. What
// is reported after that is dropped and counted.
func (r *Reporter) Run(ctx context.Context) error {
	for {
		r.flush()
		select {
		case <-r.wake:
		case <-ctx.Done():
			r.mu.Lock()
			r.stopped = true
			r.mu.Unlock()
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
		if err := r.append(f); err != nil {
			r.dropped.WithLabelValues("append").Inc()
			r.log.Warn("failure is not kept", "code", f.Code, "request_id", f.RequestID, "error", err)
		} else {
			r.reported.WithLabelValues(f.Code).Inc()
		}
		r.mu.Lock()
		r.queued -= size(f)
		r.mu.Unlock()
		*f = pipeline.Failure{} // its bytes count no more
	}
}

// append does not take Run's context: what is queued is to be kept, drain or not.
func (r *Reporter) append(f *pipeline.Failure) error {
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	_, err := r.appender.Append(ctx, []pipeline.Event{Event(f)}, pipeline.Memory)
	return err
}
