// Package errorspipeline is the mirror: what was refused goes the same way as
// events, through a second Spec of the same batcher and loader. Only this is
// its own: the record of a failure as an event, and the Reporter that takes
// failures without ever making the events pipeline wait.
package errorspipeline

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
)

// Appender takes events: a batcher of the errors pipeline.
type Appender interface {
	Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob, d pipeline.Durability) (object string, err error)
}

// Blobs keeps bytes that are too many for a record.
type Blobs interface {
	PutBlob(ctx context.Context, key string, body []byte, contentType string) error
}

// Options are a reporter's limits, in bytes. All are needed.
type Options struct {
	Memory        int64 // of failures that are queued
	BlobThreshold int64 // raw bytes beyond it become a blob
}

// Reporter queues failures and appends them. It reports of itself only to the
// log and its counters.
type Reporter struct {
	appender Appender
	blobs    Blobs
	opts     Options
	log      *slog.Logger
	reported *prometheus.CounterVec
	dropped  *prometheus.CounterVec

	mu        sync.Mutex
	queue     []pipeline.Failure
	queued    int64     // bytes, of what is being appended too
	stopped   bool      // Run has ended: nobody would append
	blobsFrom time.Time // no blob is tried before
	wake      chan struct{}
}

// appendTimeout bounds one Append, so that a batcher that hangs cannot keep Run
// from ending.
const appendTimeout = 5 * time.Second

// A bucket that does not take a blob in blobTimeout is left alone for
// blobPause; meanwhile the bytes stand in the record, which waits on disk.
const (
	blobTimeout = 3 * time.Second
	blobPause   = 30 * time.Second
)

// size is about what a failure takes in memory, in bytes.
func size(f *pipeline.Failure) int64 {
	n := 512 + len(f.Raw) + len(f.Message) + len(f.Path) + len(f.ContentType) + len(f.ContentEncoding) + len(f.UserAgent) + len(f.Object)
	for _, h := range f.Headers {
		n += 32 + len(h.Name) + len(h.Value)
	}
	return int64(n)
}

// New makes a reporter. It starts nothing.
func New(appender Appender, blobs Blobs, opts Options, log *slog.Logger, reg prometheus.Registerer) *Reporter {
	r := &Reporter{appender: appender, blobs: blobs, opts: opts, log: log, wake: make(chan struct{}, 1),
		reported: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_errors_reported_total",
			Help: "Failures taken into the errors pipeline, by code."}, []string{"code"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_errors_dropped_total",
			Help: "Failures that the errors pipeline had no room for, by reason."}, []string{"reason"}),
	}
	reg.MustRegister(r.reported, r.dropped)
	return r
}

// Drop counts a failure that is not even reported.
func (r *Reporter) Drop(reason string) { r.dropped.WithLabelValues(reason).Inc() }

// Report takes a failure. It never blocks: where there is no room the failure
// is dropped and counted.
func (r *Reporter) Report(f pipeline.Failure) {
	r.mu.Lock()
	reason := r.noRoom(&f)
	if reason == "memory" && len(f.Raw) > 0 {
		// Better to know what was refused, of whom and why, than nothing of it.
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

// noRoom tells why a failure cannot be queued. One that is alone always can:
// larger than the limit, it never could.
func (r *Reporter) noRoom(f *pipeline.Failure) (reason string) {
	switch {
	case r.stopped:
		return "stopped"
	case r.queued > 0 && r.queued+size(f) > r.opts.Memory:
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
			r.Drop("append")
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
	e := r.event(context.Background(), f)
	ctx, cancel := context.WithTimeout(context.Background(), appendTimeout)
	defer cancel()
	_, err := r.appender.Append(ctx, []pipeline.Event{e}, nil, pipeline.Memory)
	return err
}

// Keep takes failures, all or none, and returns when they are on disk. Where
// they are not, the caller is told and must keep them; so they are not counted
// as dropped.
func (r *Reporter) Keep(ctx context.Context, failures []pipeline.Failure) error {
	events := make([]pipeline.Event, len(failures))
	for i := range failures {
		events[i] = r.event(ctx, &failures[i])
	}
	if _, err := r.appender.Append(ctx, events, nil, pipeline.Disk); err != nil {
		r.dropped.WithLabelValues("keep").Add(float64(len(failures)))
		return err
	}
	for i := range failures {
		r.reported.WithLabelValues(failures[i].Code).Inc()
	}
	return nil
}

// event makes a failure's event, with a blob beside it where its raw bytes are many.
func (r *Reporter) event(ctx context.Context, f *pipeline.Failure) pipeline.Event {
	if int64(len(f.Raw)) <= r.opts.BlobThreshold {
		return Event(f, "")
	}
	named := *f
	if named.ID == (pipeline.UUID{}) {
		named.ID = pipeline.NewUUIDv7(f.Time.UnixMilli())
	}
	key := "blobs/errors/dt=" + f.Time.UTC().Format(time.DateOnly) + "/" + named.ID.String()
	if !r.putBlob(ctx, key, f.Raw) {
		key = ""
	}
	return Event(&named, key)
}

// putBlob tells whether the bucket has taken a blob.
func (r *Reporter) putBlob(ctx context.Context, key string, body []byte) bool {
	r.mu.Lock()
	paused := time.Now().Before(r.blobsFrom)
	r.mu.Unlock()
	if paused {
		return false
	}
	limited, cancel := context.WithTimeout(ctx, blobTimeout)
	defer cancel()
	// It is never to be shown as what its sender says that it is.
	err := r.blobs.PutBlob(limited, key, body, "application/octet-stream")
	if err == nil || ctx.Err() != nil { // who gave up says nothing of the bucket
		return err == nil
	}
	r.mu.Lock()
	r.blobsFrom = time.Now().Add(blobPause)
	r.mu.Unlock()
	r.log.Warn("raw bytes of a failure stay in its record, for the bucket does not take them", "key", key, "bytes", len(body), "error", err)
	return false
}
