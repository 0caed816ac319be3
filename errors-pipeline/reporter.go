// Package errorspipeline stores failures by the same way as events: a second Spec of the same batcher and loader. It
// makes events of failures, and its Reporter accepts failures without delaying the events pipeline.
package errorspipeline

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/sparselog"
)

// Appender accepts events: a batcher of the errors pipeline.
type Appender interface {
	Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
		d pipeline.Durability) (pipeline.Ticket, error)
}

// Options are a reporter's limits, in bytes. All are required.
type Options struct {
	Memory        int64 // of failures that are queued
	BlobThreshold int64 // raw bytes beyond it become a blob
}

// Reporter queues failures and appends them. It reports its own trouble only by the log and its counters.
type Reporter struct {
	appender Appender
	opts     Options
	log      *slog.Logger
	reported *prometheus.CounterVec
	dropped  *prometheus.CounterVec

	mu      sync.Mutex
	queue   []pipeline.Failure
	queued  int64 // bytes, including those being appended
	stopped bool  // Run has ended, so nothing would be appended
	wake    chan struct{}
}

// appendTimeout limits one Append, so that a batcher that hangs cannot keep Run from ending.
const appendTimeout = 5 * time.Second

// size is the approximate memory of a failure, in bytes.
func size(f *pipeline.Failure) int64 {
	n := 512 + len(f.Raw) + len(f.Message) + len(f.Path) + len(f.ContentType) + len(f.ContentEncoding) + len(f.UserAgent) +
		len(f.Object)
	for _, h := range f.Headers {
		n += 32 + len(h.Name) + len(h.Value)
	}
	return int64(n)
}

// New makes a reporter. It starts nothing.
func New(appender Appender, opts Options, log *slog.Logger, reg prometheus.Registerer) *Reporter {
	log = slog.New(sparselog.New(log.Handler())) // a line for each failure would be a flood
	r := &Reporter{appender: appender, opts: opts, log: log, wake: make(chan struct{}, 1),
		reported: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_errors_reported_total",
			Help: "Failures taken into the errors pipeline, by code."}, []string{"code"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_errors_dropped_total",
			Help: "Failures that the errors pipeline had no room for, by reason."}, []string{"reason"}),
	}
	for _, reason := range []string{"memory", "raw", "append", "stopped", "keep", "anonymous"} {
		r.dropped.WithLabelValues(reason)
	}
	reg.MustRegister(r.reported, r.dropped)
	return r
}

// Drop counts a failure without a record.
func (r *Reporter) Drop(reason string) { r.dropped.WithLabelValues(reason).Inc() }

// Report queues a failure. It never blocks: if the queue is full, the failure is dropped and counted. Only bytes that
// become a blob are written at once, by the caller, so that they are not in memory twice.
func (r *Reporter) Report(f pipeline.Failure) {
	if int64(len(f.Raw)) > r.opts.BlobThreshold && r.large(&f) {
		return
	}
	r.mu.Lock()
	reason := r.noRoom(&f)
	if reason == "memory" && len(f.Raw) > 0 {
		// A record without the raw bytes is better than none.
		short := f
		short.Raw = nil
		short.Message += fmt.Sprintf(" (its %d bytes are lost: errors.max_memory was full)", len(f.Raw))
		if r.noRoom(&short) == "" {
			f, reason = short, ""
			r.dropped.WithLabelValues("raw").Inc()
		}
	}
	if reason != "" {
		r.mu.Unlock()
		r.Drop(reason)
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

// large appends a failure whose bytes are a blob. If that fails, the bytes are lost and the failure is queued as all
// others.
func (r *Reporter) large(f *pipeline.Failure) (done bool) {
	r.mu.Lock()
	stopped := r.stopped
	r.mu.Unlock()
	if stopped {
		return false
	}
	err := r.append(f)
	if err == nil {
		r.reported.WithLabelValues(f.Code).Inc()
		return true
	}
	r.log.Warn("raw payload dropped", "code", f.Code, "request_id", f.RequestID, "bytes", len(f.Raw),
		"error", err)
	r.Drop("raw")
	f.Message += fmt.Sprintf(" (its %d bytes are lost: %s)", len(f.Raw), err)
	f.Raw = nil
	return false
}

// noRoom returns why a failure cannot be queued. A failure that is alone is always queued, because one larger than the
// limit never could be.
func (r *Reporter) noRoom(f *pipeline.Failure) (reason string) {
	switch {
	case r.stopped:
		return "stopped"
	case r.queued > 0 && r.queued+size(f) > r.opts.Memory:
		return "memory"
	}
	return ""
}

// Run appends reported failures until ctx ends, then those that are still queued. Later reports are dropped and
// counted.
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
			r.Drop("append")
			r.log.Warn("failure record dropped", "code", f.Code, "request_id", f.RequestID, "error", err)
		} else {
			r.reported.WithLabelValues(f.Code).Inc()
		}
		r.mu.Lock()
		r.queued -= size(f)
		r.mu.Unlock()
		*f = pipeline.Failure{} // its bytes count no more
	}
}

// append does not use Run's context, because queued failures are stored also during a drain.
func (r *Reporter) append(f *pipeline.Failure) error {
	e, blobs := Event(f, r.opts.BlobThreshold)
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	_, err := r.appender.Append(ctx, []pipeline.Event{e}, blobs, pipeline.Memory)
	return err
}

// Keep stores failures, all or none, and returns when they are on disk. After an error the caller must keep them, so
// they are not counted as dropped.
func (r *Reporter) Keep(ctx context.Context, failures []pipeline.Failure) error {
	events := make([]pipeline.Event, len(failures))
	var all []pipeline.Blob
	for i := range failures {
		var blobs []pipeline.Blob
		events[i], blobs = Event(&failures[i], r.opts.BlobThreshold)
		for _, b := range blobs {
			b.Event = i
			all = append(all, b)
		}
	}
	ticket, err := r.appender.Append(ctx, events, all, pipeline.Disk)
	if err == nil {
		_, err = ticket.Wait(ctx)
	}
	if err != nil {
		r.dropped.WithLabelValues("keep").Add(float64(len(failures)))
		return err
	}
	for i := range failures {
		r.reported.WithLabelValues(failures[i].Code).Inc()
	}
	return nil
}
