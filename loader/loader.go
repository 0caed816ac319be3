// Package loader loads the objects that notifications name into the table, each exactly once.
//
// The ledger says `loading` before the first insert and `loaded` after the last. If a loader finds `loaded`, it is
// done. If it finds `loading`, it does not know how far the earlier attempt came. So it asks the table for each chunk
// before it inserts it.
//
// Every attempt cuts an object into chunks at the same rows. A chunk is one block into one partition, so the table has
// all of it or nothing. If two loaders work on the same object, the chunk's deduplication token makes only one insert
// count.
//
// Read attempt.go first: the path of one object. state.go decides the next state in the ledger, delivery.go settles
// messages, chunk.go cuts and inserts, refuse.go finds the rows that the table rejects. docs/design/loader.md has the
// whole design.
package loader

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/outagelog"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/tracing"
)

// Options are a loader's limits. All but Tracer are required; there are no defaults here.
type Options struct {
	Name       string        // of this loader, in the ledger
	Workers    int           // objects loaded concurrently
	ChunkRows  int           // most rows of an insert; the same for all loaders of a table
	MinChunk   int           // rows that a chunk may always have, whatever Table.ChunkRows says; 0: unknown
	ChunkBytes int           // most bytes of a chunk's events (pipeline.Event.Size); the same for all loaders of a table
	Extend     time.Duration // interval of pipeline.Delivery.Extend; 0: the queue cannot extend
	Backoff    retry.Backoff // between attempts to load one object
	Attempts   int           // failures by the object's own fault until it is a dead letter
	Unfinished int           // consecutive attempts without an end until the object is loaded alone
	Isolation  *Isolation    // loads objects alone; all loaders of a process share it
	Probe      retry.Backoff // between probes of an unreachable table
	Drain      time.Duration // for running loads after Run's context ended

	Tracer *tracing.Tracer // nil: nothing is traced
}

// Loader loads one pipeline.
type Loader struct {
	spec    pipeline.Spec
	opts    Options
	parts   Parts
	log     *slog.Logger
	metrics *metrics

	mu     sync.Mutex
	outage error // why nothing can be loaded now
	trips  int   // outages since the last loaded object
	pause  *outagelog.Log
	stats  Stats
}

// New returns a loader. Call Run.
func New(spec pipeline.Spec, opts Options, parts Parts, log *slog.Logger, reg prometheus.Registerer) *Loader {
	log = log.With("pipeline", spec.Name)
	return &Loader{spec: spec, opts: opts, parts: parts, log: log, metrics: newMetrics(spec, reg),
		pause: outagelog.New(log, outagelog.Messages{Start: "loading is paused; objects wait in the queue",
			Still: "loading is still paused; objects wait in the queue", End: "loading continues"})}
}

// Run loads the queue's deliveries until ctx ends. Then it finishes running loads, for Options.Drain at most;
// unfinished ones are delivered again.
func (l *Loader) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan int, l.opts.Workers) // signals free workers
	free, failures := l.opts.Workers, 0
	queue := outagelog.New(l.log, outageOf(l.parts.Queue))
	for ctx.Err() == nil {
		if free == 0 {
			select {
			case n := <-done:
				free += n
			case <-ctx.Done():
			}
			continue
		}
		if err := l.broken(); err != nil {
			l.probe(ctx)
			continue
		}
		// Receive only for free workers: other loaders could load what waits here.
		deliveries, err := l.parts.Queue.Receive(ctx, free)
		if err != nil && ctx.Err() == nil {
			failures++
			wait := l.opts.Probe.Delay(failures)
			queue.Failed(err)
			l.metrics.receiveErrors.Inc()
			retry.Sleep(ctx, wait)
		} else {
			failures = 0
			queue.Works()
		}
		for _, d := range deliveries {
			free--
			go func() {
				defer func() { done <- 1 }()
				l.handle(work, d)
			}()
		}
		for len(done) > 0 {
			free += <-done
		}
	}
	timeout := time.AfterFunc(l.opts.Drain, stop)
	defer timeout.Stop()
	left := 0
	for free < l.opts.Workers {
		free += <-done
		if work.Err() != nil {
			left++
		}
	}
	if left > 0 {
		return fmt.Errorf("%s: drain: cut off %s; the queue delivers their objects again", l.spec.Name,
			show.Plural(left, "load"))
	}
	return nil
}

// outageOf returns the log messages while nothing can be received. A Poller needs bucket and ledger instead of a queue.
func outageOf(q Queue) outagelog.Messages {
	if _, polls := q.(*Poller); polls {
		return outagelog.Messages{Start: "bucket cannot be compared with the load ledger; nothing is loaded",
			Still: "bucket still cannot be compared with the load ledger; nothing is loaded",
			End:   "bucket can be compared with the load ledger again"}
	}
	return outagelog.Messages{Start: "queue unavailable; nothing is loaded",
		Still: "queue still unavailable; nothing is loaded", End: "queue available again"}
}

// Stats is a loader's work so far, for status and /status.
type Stats struct {
	Pipeline string `json:"pipeline"`
	Objects  int64  `json:"objects_loaded"` // since the start
	Rows     int64  `json:"rows_loaded"`
	Newest   int64  `json:"newest_loaded_ms"` // received_at of the newest event loaded since the start; 0: none
	Error    string `json:"error,omitempty"`  // why nothing can be loaded now
}

// Stats is safe to call at any time.
func (l *Loader) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Pipeline = l.spec.Name
	if l.outage != nil {
		s.Error = l.outage.Error()
	}
	return s
}
