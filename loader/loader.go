// Package loader turns notifications into rows: it gets the object, inserts its
// events once, writes the ledger and settles the delivery.
//
// Once, whatever happens: the ledger says `loading` before the first insert and
// `loaded` after the last. Who finds `loaded` is done. Who finds `loading` does
// not know how far the attempt before came, so it asks the table for each chunk
// before it inserts it. An object is cut into chunks at the same rows on every
// attempt, and a chunk is one block into one partition, so it is there whole or
// not at all. Two loaders at the same object at the same time are told apart by
// the chunk's deduplication token.
package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
)

// Queue gives deliveries. Receive waits some seconds for the first of at most
// max; none is no error.
type Queue interface {
	Receive(ctx context.Context, max int) ([]Delivery, error)
}

// Delivery is a notification to be settled by one Ack or Nak.
type Delivery interface {
	Body() []byte
	Attempt() int // from 1
	Ack(ctx context.Context) error
	Nak(delay time.Duration) error
	Extend() error // work on it goes on
}

// Store gives objects. The caller closes the body.
type Store interface {
	Get(ctx context.Context, key string) (pipeline.Object, io.ReadCloser, error)
}

// Table takes rows. Insert is all or nothing; it does nothing where the token
// was seen lately. Present tells whether any of an object's rows [first, end)
// is there; received bounds their received_at, in ms.
type Table interface {
	Ping(ctx context.Context) error
	Insert(ctx context.Context, table, token, object string, events []pipeline.Event) error
	Present(ctx context.Context, table, object string, first, end int64, received [2]int64) (bool, error)
}

// Ledger says what has been loaded. SaveLoad never hides an entry that has
// come further.
type Ledger interface {
	Load(ctx context.Context, key string) (pipeline.Load, bool, error)
	SaveLoad(ctx context.Context, l pipeline.Load) error
}

// Options are a loader's limits. All are needed, none has a default here.
type Options struct {
	Name       string        // of this loader, in the ledger
	Workers    int           // objects at once
	ChunkRows  int           // of one insert; the same for all loaders of a table
	ChunkBytes int           // of one insert's events in memory; likewise
	Dir        string        // for objects while they are loaded
	Extend     time.Duration // between two signs of life to the queue
	Backoff    retry.Backoff // between attempts at one object
	Probe      retry.Backoff // between probes of a table that is away
	Drain      time.Duration // for loads under way, after Run's context ended
}

// Loader is one pipeline's.
type Loader struct {
	spec    pipeline.Spec
	opts    Options
	queue   Queue
	store   Store
	table   Table
	ledger  Ledger
	log     *slog.Logger
	metrics *metrics

	mu     sync.Mutex
	outage error // why nothing can be loaded now
	trips  int   // outages since an object was loaded
	stats  Stats
}

// New makes a loader; Run does the work.
func New(spec pipeline.Spec, opts Options, q Queue, store Store, table Table, ledger Ledger, log *slog.Logger, reg prometheus.Registerer) *Loader {
	return &Loader{spec: spec, opts: opts, queue: q, store: store, table: table, ledger: ledger,
		log: log.With("pipeline", spec.Name), metrics: newMetrics(spec, reg)}
}

// Run takes notifications until ctx ends, then finishes what is under way, for
// Options.Drain at most. What is not finished then is delivered again.
func (l *Loader) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan int, l.opts.Workers) // a worker is free again
	free, failures := l.opts.Workers, 0
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
		// As many as can be begun: what waits here could be loaded elsewhere.
		deliveries, err := l.queue.Receive(ctx, free)
		if err != nil && ctx.Err() == nil {
			failures++
			wait := l.opts.Probe.Delay(failures)
			l.log.Warn("receive failed; trying again", "wait", wait.Round(time.Millisecond), "error", err)
			l.metrics.receiveErrors.Inc()
			retry.Sleep(ctx, wait)
		} else {
			failures = 0
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
		return fmt.Errorf("%s: drain: %d loads were cut off; they will be delivered again", l.spec.Name, left)
	}
	return nil
}

// broken is the reason why nothing is taken from the queue now.
func (l *Loader) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outage
}

func (l *Loader) setBroken(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && l.outage == nil {
		l.log.Error("cannot load now; objects wait in the queue", "error", err)
		l.metrics.outages.Inc()
		l.trips++
	}
	if err == nil && l.outage != nil {
		l.log.Info("loading again")
	}
	l.outage = err
	l.metrics.setBroken(err != nil)
}

// probe waits until the table answers again. A server that answers and still
// takes nothing (too many parts, read-only) is asked less and less often.
func (l *Loader) probe(ctx context.Context) {
	l.mu.Lock()
	n := l.trips
	l.mu.Unlock()
	for ; retry.Sleep(ctx, l.opts.Probe.Delay(n)) == nil; n++ {
		if err := l.table.Ping(ctx); err == nil {
			l.setBroken(nil)
			return
		}
	}
}

// handle loads what a delivery names and settles it.
func (l *Loader) handle(ctx context.Context, d Delivery) {
	notifications, err := queue.Parse(d.Body())
	if err != nil {
		// It will never say more than it does now, and the sweep finds its object.
		reason := "unparsable"
		if errors.Is(err, queue.ErrTest) {
			reason = "test"
		} else {
			l.log.Warn("notification cannot be read", "error", err, "body", string(d.Body()[:min(len(d.Body()), 300)]))
		}
		l.metrics.ignored.WithLabelValues(reason).Inc()
		l.settle(ctx, d, "")
		return
	}
	stop := l.extend(ctx, d)
	defer stop()
	for _, n := range notifications {
		if err := l.load(ctx, n); err != nil {
			l.failed(ctx, d, n, err)
			return
		}
	}
	stop()
	l.settle(ctx, d, notifications[0].Key)
}

// failed gives a delivery back. Only what is the object's own fault counts as
// an attempt.
func (l *Loader) failed(ctx context.Context, d Delivery, n pipeline.Notification, err error) {
	if ctx.Err() != nil {
		d.Nak(0) // cut off by the drain: another loader can begin at once
		return
	}
	delay := l.opts.Backoff.Delay(d.Attempt())
	if retry.ClassOf(err) == retry.Outage {
		l.setBroken(err)
	} else {
		l.metrics.failures.Inc()
		l.log.Error("load failed; trying again", "key", n.Key, "attempt", d.Attempt(), "wait", delay.Round(time.Millisecond), "error", err)
	}
	l.metrics.results.WithLabelValues("failed").Inc()
	if err := d.Nak(delay); err != nil {
		l.log.Warn("nak failed; it will be delivered again", "key", n.Key, "error", err)
	}
}

func (l *Loader) settle(ctx context.Context, d Delivery, key string) {
	if err := d.Ack(ctx); err != nil {
		l.log.Warn("ack failed; it will be delivered again", "key", key, "error", err)
	}
}

// extend tells the queue at intervals that the delivery is being worked on,
// until the returned function is called.
func (l *Loader) extend(ctx context.Context, d Delivery) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for retry.Sleep(ctx, l.opts.Extend) == nil {
			if err := d.Extend(); err != nil {
				l.log.Warn("extend failed", "error", err)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// Stats is what a loader has done, for status and /status.
type Stats struct {
	Pipeline string `json:"pipeline"`
	Objects  int64  `json:"objects_loaded"` // since the start
	Rows     int64  `json:"rows_loaded"`
	Error    string `json:"error,omitempty"` // why nothing is loaded now
}

// Stats may be called at any time.
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
