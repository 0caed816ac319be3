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
//
// A row that the table refuses is left out (refuse.go); the ledger remembers
// which, before the others go in. An object that fails through its own fault
// too often is given up (settle.go). An operator can have the rows of an object
// replaced (reingest.go): they come in again under the next generation, then
// those before are deleted.
package loader

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Queue gives deliveries. Receive waits some seconds for the first of at most
// max; none is no error.
type Queue interface {
	Receive(ctx context.Context, max int) ([]Delivery, error)
}

// Delivery is a notification to be settled by one Ack or Nak.
type Delivery interface {
	Notifications() ([]pipeline.Notification, error) // none: a store's test message
	Attempt() int                                    // from 1
	Ack(ctx context.Context) error
	Nak(delay time.Duration) error
	Extend() error // work on it goes on
}

// Store gives objects. The caller closes the body.
type Store interface {
	Get(ctx context.Context, key string) (pipeline.Object, io.ReadCloser, error)
}

// Table takes rows. ChunkRows is how many rows like those of a sample a chunk
// may have, at most most; the same for the same sample. Present tells whether any of an object's rows [first, end)
// of a generation is there, Newest the highest generation that it has there;
// received bounds their received_at, in ms. Expired is the time before which the
// table deletes rows, by their received_at; zero: it deletes none.
type Table interface {
	Ping(ctx context.Context) error
	ChunkRows(sample []pipeline.Event, most int) int
	NewBlock(ctx context.Context, table, object string, generation uint32) (Block, error)
	Present(ctx context.Context, table, object string, generation uint32, first, end int64, received [2]int64) (bool, error)
	Newest(ctx context.Context, table, object string, received [2]int64) (generation uint32, there bool, err error)
	Expired(ctx context.Context, table string) (before time.Time, err error)
	DeleteOlder(ctx context.Context, table, object string, generation uint32) error
	Try(ctx context.Context, table string) (Trial, error)
}

// Block is the rows of one insert. Append takes what it needs of the events and
// of the values beside them.
// Insert is all or nothing, and does nothing where the token was seen lately; again
// gives the same events once more. It is called once, and the block is done with then.
type Block interface {
	Append(events []pipeline.Event, typed []*pipeline.Typed)
	Insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error
}

// Trial refuses what its table would refuse, and keeps nothing.
type Trial interface {
	Insert(ctx context.Context, object string, events []pipeline.Event) error
	Close(ctx context.Context) error
}

// Letters takes what was given up; it returns when that is safe.
type Letters interface {
	DeadLetter(ctx context.Context, d pipeline.DeadLetter) error
}

// Reporter is the errors pipeline. Report never blocks; Keep returns when the
// failures are on disk.
type Reporter interface {
	Report(f pipeline.Failure)
	Keep(ctx context.Context, failures []pipeline.Failure) error
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
	ChunkRows  int           // of one insert at most; the same for all loaders of a table
	MinChunk   int           // rows that any chunk may have, by Table.ChunkRows; 0: none are certain
	ChunkBytes int           // of its events, by pipeline.Event.Size; likewise
	Extend     time.Duration // between two signs of life to the queue
	Backoff    retry.Backoff // between attempts at one object
	Attempts   int           // that may fail through the object's own fault; then it is a dead letter
	Unfinished int           // attempts in a row that may begin and never end; then the object is loaded alone
	Isolation  *Isolation    // how it is loaded alone; all loaders of a process share it
	Probe      retry.Backoff // between probes of a table that is away
	Drain      time.Duration // for loads under way, after Run's context ended
}

// Parts are what a loader works with.
type Parts struct {
	Queue   Queue
	Source  Source
	Table   Table
	Ledger  Ledger
	Letters Letters  // nil: the ledger alone has the dead letters
	Report  Reporter // nil: failures go to the log and the counters only
}

// Loader is one pipeline's.
type Loader struct {
	spec    pipeline.Spec
	opts    Options
	parts   Parts
	log     *slog.Logger
	metrics *metrics

	mu     sync.Mutex
	outage error // why nothing can be loaded now
	trips  int   // outages since an object was loaded
	stats  Stats
}

// New makes a loader; Run does the work.
func New(spec pipeline.Spec, opts Options, parts Parts, log *slog.Logger, reg prometheus.Registerer) *Loader {
	return &Loader{spec: spec, opts: opts, parts: parts, log: log.With("pipeline", spec.Name),
		metrics: newMetrics(spec, reg)}
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
		deliveries, err := l.parts.Queue.Receive(ctx, free)
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
		if err := l.parts.Table.Ping(ctx); err == nil {
			l.setBroken(nil)
			return
		}
	}
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
