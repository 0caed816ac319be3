// Package batcher gathers events into batches and makes one object of each.
//
// A batch is one segment of the write-ahead log, under a key that never changes:
//
//	active ──roll──▶ sealed ──encode, PUT──▶ uploaded ──▶ released
//
// Append brings blobs to their own log (blobs.go), frames the events, and adds
// them to the write that is being gathered (append.go). One goroutine writes and,
// if a ticket waits for it, fsyncs, many appends at a time; it picks the segment
// (commit.go). Uploaders encode sealed segments from disk and put them into the
// bucket (upload.go, encode.go). What waits, waits on disk: memory is bounded by
// the writes being gathered and by the encoders.
//
// docs/design/batcher.md has the formats, the recovery and the failures.
package batcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/outagelog"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/tracing"
)

// Store is where objects go. If an equal object exists under the key, Put succeeds. If another object does, Put returns
// a pipeline.ConflictError.
type Store interface {
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64, meta pipeline.Meta) (pipeline.Object, error)
}

// Options are a batcher's limits. All but FS, Tracer, Stored and Failed are required.
type Options struct {
	Receiver string          // in keys; see pipeline.ValidReceiver
	Dir      string          // the log's folder, used by this batcher alone
	FS       wal.FS          // nil: the real one
	Format   pipeline.Format // of new batches

	RollAge      time.Duration // from a batch's first event to its roll
	RollBytes    int64         // size of an object, bytes, as foreseen from the objects before it
	RollRows     int64         // events in a batch
	SegmentBytes int64         // size of a segment, bytes: a bound for RollBytes's guess
	MaxDisk      int64         // bytes of all segments together; beyond it Append returns ErrFull
	ObjectWait   time.Duration // from an Append with durability object to the early roll it shares

	ObjectTimeout time.Duration // then it returns pipeline.ErrPending

	Uploads    int           // PUTs at once
	PutTimeout time.Duration // of one PUT
	Backoff    retry.Backoff // between PUTs that fail
	Drain      time.Duration // for all uploads together, after Run's context ended

	Tracer *tracing.Tracer // nil: nothing is traced

	// Stored is called with each object before its segment is released; nil: never.
	Stored func(ctx context.Context, o pipeline.Object)
	// Failed is called with data that cannot become part of an object. It must not block; nil: never called.
	Failed func(f pipeline.Failure)
}

// Errors of Append and of tickets for events that are not accepted.
var (
	ErrFull        = errors.New("the disk limit for waiting batches is reached")
	ErrUnavailable = errors.New("the write-ahead log cannot be written")
	ErrClosed      = errors.New("the batcher is draining")
	ErrLocked      = wal.ErrLocked // another process uses the folder
)

// Batcher is the batcher of one pipeline. Call Open, then Run, then Append.
type Batcher struct {
	spec    pipeline.Spec
	opts    Options
	store   Store
	log     *slog.Logger
	outage  *outagelog.Log // of PUTs that fail
	refusal *outagelog.Log // of PUTs that the store rejects
	metrics *metrics
	fs      wal.FS
	wal     *wal.Log

	encoders *codec.Encoders
	encoding chan struct{} // a token for each batch that is being encoded

	kick  chan struct{} // the committer has something to do now
	ready chan struct{} // there may be a sealed batch; one token an uploader

	active *batch       // the committer's: its segment takes writes; set with mu held
	last   pipeline.Key // the committer's: of the newest batch

	mu        sync.Mutex
	nextSeq   uint64
	fill      fill
	writes    []*write     // for the committer, in order
	tail      *write       // the last of writes while it still takes appends
	spare     [][]byte     // empty buffers for the next writes
	gathered  int64        // bytes of writes
	expect    int          // writers waiting when the last fsync ended, including those that it served
	holdUntil time.Time    // they are awaited until then
	blobs     *blobSegment // takes blobs now; nil: the next one begins it
	unused    []leftover   // to be removed
	failing   error        // why nothing can be written now
	probed    time.Time    // when writing was last tried while failing
	closed    bool         // no event is taken any more
	finished  bool         // no batch will be sealed any more
	sealed    []*batch     // for the uploaders, oldest first
	disk      int64        // bytes of all files, including the next writes
	full      bool         // an Append was rejected for it, and no space was released since
	waiting   []*batch     // sealed and not stored
	later     int          // batches that are to be encoded again after a pause
	refusals  []*batch     // batches that the store rejects, oldest rejection first
	stuck     []*batch     // stored, but their segments could not be released
	encoded   float64      // bytes of recent objects, older ones weighing less
	framed    float64      // bytes of their segments, weighed alike
	newest    int64        // received_at of the newest event, ms
	lastErr   string       // of the last PUT that failed, until one succeeds
	released  int64        // objects since the start
	replayed  time.Time    // begin of the newest batch found at Open
	opened    time.Time    // when Open was called
	setAside  int          // files in the folder that could not be read, wholly or in part
}

// batch becomes one object.
type batch struct {
	key      pipeline.Key
	text     string // key.String()
	segment  *wal.Segment
	size     int64           // of the segment, bytes; set when it is sealed
	sealed   time.Time       // zero: by an earlier process
	traced   bool            // its span was made
	blobs    []*blobSegment  // that its records refer to; each is held
	earlier  []*earlierBlobs // files of the first version, put before it
	own      *earlierBlobs   // the one that belongs to its segment; nil: none
	blobKeys int             // keys of its blobs that another object has
	lost     bool            // bytes of its blobs are lost, and that was reported
	nextSeq  uint64          // behind its last event; set when it is encoded
	failures int             // attempts to encode it
	refused  int             // attempts to store it that the store rejected
	refusal  error           // the last of these
	stored   chan struct{}   // closed when the object is in the bucket, or never will be under this key
	storeErr error           // set before stored is closed
}

func newBatch(key pipeline.Key, seg *wal.Segment) *batch {
	return &batch{key: key, text: key.String(), segment: seg, stored: make(chan struct{})}
}

// New makes a batcher. Open is the first call that uses the disk.
func New(spec pipeline.Spec, opts Options, store Store, log *slog.Logger, reg prometheus.Registerer) *Batcher {
	fs := opts.FS
	if fs == nil {
		fs = wal.OS{}
	}
	b := &Batcher{
		spec: spec, opts: opts, store: store, fs: fs,
		log:      log.With("pipeline", spec.Name),
		encoders: codec.NewEncoders(),
		encoding: make(chan struct{}, max(1, min(opts.Uploads, runtime.GOMAXPROCS(0)/cpusAnEncoder))),
		kick:     make(chan struct{}, 1),
		ready:    make(chan struct{}, opts.Uploads),
	}
	b.outage = outagelog.New(b.log, outagelog.Messages{Start: "bucket unavailable; batches wait on disk",
		Still: "bucket still unavailable; batches wait on disk", End: "bucket available again"})
	b.refusal = outagelog.New(b.log, outagelog.Messages{Start: "store refuses objects; batches wait on disk",
		Still: "store still refuses objects; batches wait on disk", End: "store accepts objects again"})
	b.metrics = newMetrics(spec, reg, b)
	return b
}

// Run writes and uploads until ctx ends. Then it rolls the active batch and uploads the waiting ones, for at most
// Options.Drain. The rest stays in the log, and the next process replays it.
func (b *Batcher) Run(ctx context.Context) error {
	defer b.wal.Close()
	drain, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	for range b.opts.Uploads {
		g.Go(func() error { b.uploads(drain); return nil })
	}
	b.commits(ctx) // returns when the last segment is sealed
	timeout := time.AfterFunc(b.opts.Drain, stop)
	defer timeout.Stop()
	b.wake()
	g.Wait()
	b.release() // what stays is put again by the next process, under the same key
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gathered > 0 {
		return fmt.Errorf("%s: drain: %d bytes of events acknowledged from memory are lost: %w",
			b.spec.Name, b.gathered, b.failing)
	}
	if len(b.waiting) > 0 {
		return fmt.Errorf("%s: drain: %s not in the bucket yet (%s); the next start uploads what is in %s",
			b.spec.Name, show.Plural(len(b.waiting), "batch"),
			cmp.Or(b.trouble(), "uploads took longer than "+b.opts.Drain.String()), b.opts.Dir)
	}
	return nil
}

// Stats describes what waits in a batcher, for status and /status.
type Stats struct {
	Pipeline      string  `json:"pipeline"`
	ActiveRows    int64   `json:"active_rows"`
	ActiveBytes   int64   `json:"active_bytes"`
	ActiveSeconds float64 `json:"active_age_seconds"`
	Sealed        int     `json:"sealed_batches"` // or being uploaded
	OldestSeconds float64 `json:"oldest_sealed_age_seconds"`
	Disk          int64   `json:"disk_bytes"` // active and sealed
	MaxDisk       int64   `json:"max_disk_bytes"`
	Newest        int64   `json:"newest_accepted_ms"` // received_at, 0: none since the start
	Stored        int64   `json:"objects_stored"`     // since the start
	Refused       int     `json:"refused_batches"`    // batches that the store rejects; they are retried
	SetAside      int     `json:"segments_set_aside"` // files of the folder that could not be read, wholly or in part
	Error         string  `json:"error,omitempty"`    // why uploads or writes fail now
}

// Stats may be called at any time.
func (b *Batcher) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stats{Pipeline: b.spec.Name, Sealed: len(b.waiting), Disk: b.disk, MaxDisk: b.opts.MaxDisk,
		Newest: b.newest, Stored: b.released, Refused: len(b.refusals), SetAside: b.setAside, Error: b.trouble()}
	if b.failing != nil {
		s.Error = b.failing.Error()
	}
	for _, bt := range b.waiting {
		s.OldestSeconds = max(s.OldestSeconds, time.Since(bt.key.Time).Seconds())
	}
	if f := b.fill; !f.began.IsZero() {
		s.ActiveRows, s.ActiveBytes, s.ActiveSeconds = f.rows, f.size+f.blobs, time.Since(f.began).Seconds()
	}
	return s
}

// trouble is why uploads fail now; empty: they succeed. mu is held.
func (b *Batcher) trouble() string {
	if len(b.refusals) > 0 {
		return b.refusals[0].refusal.Error()
	}
	return b.lastErr
}

// Refused returns why the store rejects objects (a missing right or feature), and whether it has stored none since the
// start. If the store rejects none, the error is nil.
func (b *Batcher) Refused() (none bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refusals) > 0 {
		err = b.refusals[0].refusal
	}
	return b.released == 0, err
}

// Newest is when the newest batch of an earlier process began; zero: none. It does not change after Open.
func (b *Batcher) Newest() time.Time { return b.replayed }

// Ready returns why an Append would be rejected now; nil: it would not.
func (b *Batcher) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return ErrClosed
	case b.failing != nil:
		return b.failing
	case b.full || b.disk >= b.opts.MaxDisk:
		return ErrFull
	}
	return nil
}
