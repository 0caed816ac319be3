package batcher

// Except for TestRealDisk, all tests here run in bubbles (internal/testing/bubble). Sleeps use fake time: they take
// none and end exactly. They test ages, pauses and deadlines.

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/batcher/wal"
	"github.com/penstock/penstock/batcher/wal/waltest"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
)

func options() Options {
	return Options{
		Receiver: "game1", Dir: "/wal", Format: pipeline.NDJSON,
		RollAge: 90 * time.Second, RollBytes: 64 << 20, RollRows: 1 << 20, SegmentBytes: 256 << 20, MaxDisk: 1 << 30,
		ObjectWait: 2 * time.Second, ObjectTimeout: 20 * time.Second,
		Uploads: 2, PutTimeout: 30 * time.Second, Backoff: retry.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second},
		Drain: 30 * time.Second,
	}
}

// rig is a batcher that runs.
type rig struct {
	*Batcher
	t     *testing.T
	fs    *waltest.FS
	store *fakeStore
	logs  *logs
	next  uint64 // id of the next event
	stop  func() error
}

// logs keeps all lines.
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logs) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(e string) bool { return strings.Contains(e, s) })
}

func build(t *testing.T, opts Options, fs *waltest.FS, store *fakeStore) *rig {
	l := &logs{}
	if opts.FS == nil {
		opts.FS = fs
	}
	b := New(pipeline.Events, opts, store, slog.New(slog.NewTextHandler(l, nil)), prometheus.NewRegistry())
	return &rig{Batcher: b, t: t, fs: fs, store: store, logs: l, next: 1}
}

// start opens and runs a batcher; stop ends it and returns what Run does.
func start(t *testing.T, opts Options, fs *waltest.FS, store *fakeStore) *rig {
	t.Helper()
	r := build(t, opts, fs, store)
	if err := r.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { r.stop() })
	return r
}

// event makes an event whose id tells it from all others.
func event(id uint64, size int) pipeline.Event {
	e := pipeline.Event{Project: []byte("p"), Name: []byte("n"),
		ReceivedAt: time.Now().UnixMilli(), Timestamp: pipeline.NoTime,
		Properties: []byte(`{"x":"` + strings.Repeat("x", size) + `"}`), Context: []byte("{}")}
	binary.BigEndian.PutUint64(e.ID[:], id)
	return e
}

func (r *rig) events(n, size int) []pipeline.Event {
	events := make([]pipeline.Event, n)
	for i := range events {
		events[i] = event(r.next, size)
		r.next++
	}
	return events
}

// Append appends and waits.
func (r *rig) Append(ctx context.Context, events []pipeline.Event, blobs []pipeline.Blob,
	d pipeline.Durability) (string, error) {
	return appendWait(ctx, r.Batcher, events, blobs, d)
}

func appendWait(ctx context.Context, b *Batcher, events []pipeline.Event, blobs []pipeline.Blob,
	d pipeline.Durability) (string, error) {
	ticket, err := b.Append(ctx, events, blobs, d)
	if err != nil {
		return "", err
	}
	return ticket.Wait(ctx)
}

// object is the key of the only batch that waits.
func (r *rig) object() string {
	r.t.Helper()
	names, _ := r.fs.ReadDir("/wal")
	for _, name := range names {
		b, _ := r.fs.Get("/wal/" + name)
		if i := bytes.Index(b, []byte("events/dt=")); strings.HasSuffix(name, ".wal") && i > 0 {
			return string(b[i : i+bytes.Index(b[i:], []byte("ndjson.zst"))+len("ndjson.zst")])
		}
	}
	r.t.Fatal("no batch waits")
	return ""
}

func (r *rig) append(d pipeline.Durability, n int) error {
	_, err := r.Append(r.t.Context(), r.events(n, 10), nil, d)
	return err
}

func (r *rig) must(d pipeline.Durability, n int) {
	r.t.Helper()
	if err := r.append(d, n); err != nil {
		r.t.Fatal(err)
	}
}

func idOf(e pipeline.Event) uint64 { return binary.BigEndian.Uint64(e.ID[:]) }

// ids returns the stored ids. Each id and each seq must occur once.
func (s *fakeStore) ids(t *testing.T) []uint64 {
	t.Helper()
	events, err := s.stored()
	if err != nil {
		t.Fatal(err)
	}
	seqs, ids := map[uint64]pipeline.Event{}, map[uint64]pipeline.Event{}
	var all []uint64
	for _, e := range events {
		id := idOf(e)
		if before, twice := ids[id]; twice {
			t.Errorf("event %d is stored twice, as seq %d and %d", id, before.Seq, e.Seq)
		}
		if before, twice := seqs[e.Seq]; twice {
			t.Errorf("seq %d is event %d and event %d", e.Seq, idOf(before), id)
		}
		ids[id], seqs[e.Seq] = e, e
		all = append(all, id)
	}
	if t.Failed() {
		t.Fatalf("stored, in this order: %v", s.keys())
	}
	return all
}

// want checks that exactly the events 1 to n are stored.
func (s *fakeStore) want(t *testing.T, n int) {
	t.Helper()
	got := s.ids(t)
	slices.Sort(got)
	for i, id := range got {
		if id != uint64(i+1) {
			t.Fatalf("stored events %v, want 1 to %d", got, n)
		}
	}
	if len(got) != n {
		t.Fatalf("%d events are stored, want %d", len(got), n)
	}
}

func (r *rig) wantSegments(n int) {
	r.t.Helper()
	names, _ := r.fs.ReadDir("/wal")
	names = slices.DeleteFunc(names, func(s string) bool { return !strings.HasSuffix(s, ".wal") })
	if len(names) != n {
		r.t.Errorf("segments %v, want %d", names, n)
	}
}

func (r *rig) mustStop() {
	r.t.Helper()
	if err := r.stop(); err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

func TestRollByAge(t *testing.T) {
	for _, d := range []pipeline.Durability{pipeline.Memory, pipeline.Disk} {
		bubble.Test(t, func(t *testing.T) {
			r := start(t, options(), waltest.New(), newStore())
			time.Sleep(time.Hour) // the age counts from the first event
			r.must(d, 1)
			time.Sleep(89 * time.Second)
			r.must(d, 1)
			time.Sleep(time.Second - time.Nanosecond)
			synctest.Wait()
			if n := len(r.store.keys()); n != 0 {
				t.Errorf("%d objects before RollAge, want 0", n)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if n := len(r.store.keys()); n != 1 {
				t.Errorf("%d objects at RollAge, want 1", n)
			}
			r.store.want(t, 2)
			r.wantSegments(0)
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := len(r.store.keys()); n != 1 {
				t.Errorf("%d objects after an hour without events, want 1", n)
			}
			r.mustStop()
			if s := r.Stats(); s.Disk != 0 || s.Sealed != 0 || s.Stored != 1 {
				t.Errorf("stats %+v at the end", s)
			}
		})
	}
}

func TestRollByRows(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.RollRows = 10
		r := start(t, opts, waltest.New(), newStore())
		for range 9 {
			r.must(pipeline.Disk, 1)
		}
		synctest.Wait()
		if n := len(r.store.keys()); n != 0 {
			t.Errorf("%d objects of 9 rows, want 0", n)
		}
		r.must(pipeline.Disk, 1)
		synctest.Wait()
		if n := len(r.store.keys()); n != 1 {
			t.Errorf("%d objects of 10 rows, want 1", n)
		}
		r.must(pipeline.Memory, 35) // one request is never split
		synctest.Wait()
		if n := len(r.store.keys()); n != 2 {
			t.Errorf("%d objects, want 2", n)
		}
		r.store.want(t, 45)
		r.mustStop()
	})
}

// The size of an object is foreseen from the objects before it: the second segment may be much larger than the first.
func TestRollByBytes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.RollBytes, opts.SegmentBytes = 100<<10, 1<<20
		r := start(t, opts, waltest.New(), newStore())
		count := func() (n int) { // appends until the next object
			for before := len(r.store.keys()); len(r.store.keys()) == before; n++ {
				if _, err := r.Append(t.Context(), r.events(1, 1000), nil, pipeline.Disk); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
			return n
		}
		first, second := count(), count()
		if first < 90 || first > 105 {
			t.Errorf("the first roll after %d KB, want 100: nothing is known yet", first)
		}
		if second < 900 || second > 1050 {
			t.Errorf("the second roll after %d KB, want 1024: it compresses so well that the segment's limit holds", second)
		}
		r.mustStop()
		r.store.want(t, first+second)
	})
}

func TestRollByStop(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := start(t, options(), waltest.New(), newStore())
		r.must(pipeline.Memory, 3)
		r.must(pipeline.Disk, 3)
		r.must(pipeline.Memory, 3)
		r.mustStop()
		r.store.want(t, 9)
		r.wantSegments(0)
		if err := r.append(pipeline.Memory, 1); !errors.Is(err, ErrClosed) {
			t.Errorf("Append after Run: %v, want ErrClosed", err)
		}
	})
}

func TestNoObjectForNoEvents(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := waltest.New()
		r := start(t, options(), fs, newStore())
		if key, err := r.Append(t.Context(), nil, nil, pipeline.Bucket); key != "" || err != nil {
			t.Errorf("Append of nothing: %q, %v", key, err)
		}
		// A rejected event leaves an empty segment.
		fs.Fail(func(op, _ string) error {
			if op == "sync" {
				return waltest.ErrFault
			}
			return nil
		})
		if err := r.append(pipeline.Disk, 1); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		time.Sleep(10 * time.Second)
		fs.Fail(nil)
		time.Sleep(10 * time.Minute)
		r.mustStop()
		if keys := r.store.keys(); len(keys) != 0 {
			t.Errorf("stored %v, want nothing", keys)
		}
		r.wantSegments(0)
	})
}

func TestObjectDurability(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		r := start(t, opts, waltest.New(), newStore())
		r.store.delay = time.Second
		r.must(pipeline.Disk, 1)
		began := time.Now()
		var g sync.WaitGroup
		keys := make([]string, 5)
		for i := range keys {
			events := r.events(1, 10)
			g.Go(func() {
				time.Sleep(time.Duration(i) * 300 * time.Millisecond)
				var err error
				if keys[i], err = r.Append(t.Context(), events, nil, pipeline.Bucket); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took != opts.ObjectWait+r.store.delay {
					t.Errorf("answered after %v, want %v", took, opts.ObjectWait+r.store.delay)
				}
			})
		}
		g.Wait()
		stored := r.store.keys()
		if len(stored) != 1 || slices.ContainsFunc(keys, func(k string) bool { return k != stored[0] }) {
			t.Errorf("answers %v, stored %v: want one object", keys, stored)
		}
		r.store.want(t, 6)
		r.mustStop()
	})
}

func TestObjectTimeout(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		r := start(t, opts, waltest.New(), newStore())
		r.store.setFail(func(string) (error, error) { return nil, errStore })
		began := time.Now()
		err := r.append(pipeline.Bucket, 1)
		if !errors.Is(err, pipeline.ErrPending) || time.Since(began) != opts.ObjectTimeout {
			t.Errorf("got %v after %v, want ErrPending after %v", err, time.Since(began), opts.ObjectTimeout)
		}
		r.store.setFail(nil)
		time.Sleep(opts.Backoff.Max)
		synctest.Wait()
		r.store.want(t, 1)
		r.mustStop()
	})
}

func TestPutFails(t *testing.T) {
	for _, rate := range []float64{0, 0.1, 0.9} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				opts := options()
				opts.Drain = time.Hour
				r := start(t, opts, waltest.New(), newStore())
				r.store.rate = rate
				for range 30 {
					r.must(pipeline.Disk, 3)
					time.Sleep(40 * time.Second)
				}
				r.mustStop()
				r.store.want(t, 90)
				r.wantSegments(0)
				if s := r.Stats(); s.Error != "" || s.Sealed != 0 {
					t.Errorf("stats %+v at the end", s)
				}
			})
		})
	}
}

// An outage delays: batches go up oldest first when it ends, and the pauses stay within the backoff's limits.
func TestOutage(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.Uploads = 1
		r := start(t, opts, waltest.New(), newStore())
		r.store.setFail(func(string) (error, error) { return nil, errStore })
		for range 20 {
			r.must(pipeline.Disk, 1)
			time.Sleep(100 * time.Second)
		}
		if s := r.Stats(); s.Sealed != 20 || s.Error == "" {
			t.Errorf("stats %+v: want 20 sealed and the error", s)
		}
		r.store.mu.Lock()
		puts := r.store.puts
		r.store.mu.Unlock()
		if n, most := puts, int(2000*time.Second/opts.Backoff.Max*4); n > most {
			t.Errorf("%d PUTs in an outage, want at most %d", n, most)
		}
		r.store.setFail(nil)
		time.Sleep(opts.Backoff.Max)
		synctest.Wait()
		r.store.want(t, 20)
		if keys := r.store.keys(); !slices.IsSorted(keys) {
			t.Errorf("stored in the order %v", keys)
		}
		r.mustStop()
	})
}

func TestConflict(t *testing.T) {
	for _, c := range []struct {
		name    string
		foreign func(m pipeline.Meta) pipeline.Meta
		done    bool
	}{
		{"same batch, encoded differently", func(m pipeline.Meta) pipeline.Meta { m.SHA256 = "other"; return m }, true},
		{"more rows than are readable now", func(m pipeline.Meta) pipeline.Meta { m.Rows++; return m }, true},
		{"fewer rows", func(m pipeline.Meta) pipeline.Meta { m.Rows--; return m }, false},
		{"another batch", func(m pipeline.Meta) pipeline.Meta { m.FirstSeq++; return m }, false},
		{"not ours", func(pipeline.Meta) pipeline.Meta { return pipeline.Meta{} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := start(t, options(), waltest.New(), newStore())
				r.must(pipeline.Disk, 3)
				key := r.object()
				k, _ := pipeline.ParseKey(key)
				r.store.put(key, c.foreign(pipeline.Meta{Rows: 3, FirstSeq: k.Seq}))
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if c.done {
					r.mustStop()
					r.wantSegments(0)
					return
				}
				if err := r.stop(); err == nil || !r.logs.has("another object has the key") {
					t.Errorf("Run: %v, want an error, and one in the log", err)
				}
				r.wantSegments(1)
			})
		})
	}
}

// A foreign object under one key holds up no other batch.
func TestConflictBlocksNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.Uploads = 1
		r := start(t, opts, waltest.New(), newStore())
		r.must(pipeline.Disk, 1)
		r.store.put(r.object(), pipeline.Meta{})
		time.Sleep(2 * time.Minute)
		r.next = 1
		r.must(pipeline.Disk, 5)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.store.want(t, 5)
		r.stop()
	})
}

// A bucket that is away is one line when that starts, one a minute, and one when it ends, however many PUTs fail.
func TestOutageInTheLog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := start(t, options(), waltest.New(), newStore())
		r.store.setFail(func(string) (error, error) { return nil, errors.New("connection refused") })
		for range 5 {
			r.must(pipeline.Disk, 1)
			time.Sleep(time.Minute)
		}
		r.store.setFail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		count := map[string]int{}
		for _, line := range r.logs.lines {
			for _, what := range []string{`msg="bucket unavailable; batches wait on disk" pipeline=events error="connection refused" ` +
				`waiting_batches=`, `msg="bucket still unavailable`, `msg="bucket available again" pipeline=events outage=`,
				"level=WARN", "level=ERROR"} {
				if strings.Contains(line, what) {
					count[what]++
				}
			}
		}
		got := fmt.Sprint(slices.Sorted(maps.Values(count)))
		// The first roll is a while after the first event.
		if warnings := count["level=WARN"]; got != fmt.Sprint([]int{1, 1, warnings - 1, warnings}) || warnings < 3 || warnings > 5 {
			t.Errorf("lines %v in\n%s", count, strings.Join(r.logs.lines, ""))
		}
	})
}

// An object that the store rejects does not block the next ones. It is stored when the store accepts it, with pauses
// between attempts.
func TestRefusedBlocksNobody(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.Uploads = 1
		r := start(t, opts, waltest.New(), newStore())
		refusal := fmt.Errorf("put: %w", pipeline.RefusedError{Missing: pipeline.MissingGet,
			Err: errors.New("give it the right s3:GetObject")})
		r.must(pipeline.Disk, 1)
		first := r.object()
		tries := 0
		r.store.setFail(func(key string) (error, error) {
			if key == first {
				tries++
				return nil, refusal
			}
			return nil, nil
		})
		for range 10 {
			time.Sleep(2 * time.Minute)
			r.must(pipeline.Disk, 1)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := len(r.store.keys()); n != 10 {
			t.Errorf("%d other objects are stored, want 10", n)
		}
		if s := r.Stats(); s.Sealed != 1 || s.Refused != 1 || !strings.Contains(s.Error, "s3:GetObject") {
			t.Errorf("stats %+v", s)
		}
		if none, err := r.Refused(); none || !strings.Contains(fmt.Sprint(err), "s3:GetObject") || r.Ready() != nil {
			t.Errorf("got %t, %v; ready: %v", none, err, r.Ready())
		}
		if !r.logs.has(`missing=s3:GetObject`) {
			t.Errorf("not logged: %v", r.logs.lines)
		}
		least, most := int(22*time.Minute/(refusedFor*opts.Backoff.Max)), int(22*time.Minute/opts.Backoff.Max)
		if tries < least || tries > most {
			t.Errorf("%d tries in 22 minutes, want %d to %d", tries, least, most)
		}
		r.store.setFail(nil)
		time.Sleep(refusedFor * opts.Backoff.Max)
		synctest.Wait()
		r.store.want(t, 11)
		if s := r.Stats(); s.Refused != 0 || s.Error != "" || s.Sealed != 0 {
			t.Errorf("stats %+v at the end", s)
		}
		r.mustStop()
		r.wantSegments(0)
	})
}

// A store that rejects everything has stored nothing since the start. At the end, the waiting batches stay in the log.
func TestRefusesEverything(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs, store := waltest.New(), newStore()
		r := start(t, options(), fs, store)
		store.setFail(func(string) (error, error) {
			return nil, pipeline.RefusedError{Missing: pipeline.MissingConditional,
				Err: errors.New("it has to support conditional PUT")}
		})
		if none, err := r.Refused(); !none || err != nil {
			t.Errorf("before the first object: got %t, %v", none, err)
		}
		if err := r.append(pipeline.Bucket, 1); !errors.Is(err, pipeline.ErrPending) {
			t.Errorf("durability object: got %v", err)
		}
		r.must(pipeline.Disk, 1)
		time.Sleep(5 * time.Minute)
		if none, err := r.Refused(); !none || err == nil || r.Stats().Refused != 2 {
			t.Errorf("got %t, %v, stats %+v", none, err, r.Stats())
		}
		if err := r.stop(); err == nil || !strings.Contains(err.Error(), "it has to support conditional PUT") {
			t.Errorf("stopped with %v", err)
		}
		r.wantSegments(2)
		store.setFail(nil)
		r = start(t, options(), fs, store)
		time.Sleep(time.Minute)
		r.mustStop()
		store.want(t, 2)
	})
}

// A crash between PUT and release, and one before the answer to the PUT: the next process replays under the same key.
func TestCrashAfterPut(t *testing.T) {
	for _, format := range []pipeline.Format{pipeline.Parquet, pipeline.NDJSON} {
		bubble.Test(t, func(t *testing.T) {
			opts := options()
			opts.Format = format
			store := newStore()
			r := start(t, opts, waltest.New(), store)
			store.setFail(func(string) (error, error) { return errStore, nil }) // stored, but the answer is lost
			for range 5 {
				r.must(pipeline.Disk, 7)
			}
			r.must(pipeline.Memory, 3)
			time.Sleep(91 * time.Second)
			synctest.Wait()
			keys := store.keys()
			if len(keys) != 1 {
				t.Fatalf("stored %v, want one", keys)
			}
			after := r.fs.Kill()
			r.stop()
			store.setFail(nil)
			opts.Receiver = "renamed" // the old events keep their receiver's name
			again := start(t, opts, after, store)
			synctest.Wait()
			if got := store.keys(); !slices.Equal(got, keys) {
				t.Errorf("stored %v after the replay, want %v", got, keys)
			}
			store.want(t, 38)
			again.wantSegments(0)
			again.mustStop()
		})
	}
}

// One Append alone waits for its fsync and for nothing else; many share fsyncs.
func TestGroupCommit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := waltest.New()
		fs.SyncTime = time.Millisecond
		r := start(t, options(), fs, newStore())
		r.must(pipeline.Disk, 1)
		time.Sleep(time.Second)
		began := time.Now()
		r.must(pipeline.Disk, 1)
		if took := time.Since(began); took != fs.SyncTime {
			t.Errorf("one Append alone took %v, want %v", took, fs.SyncTime)
		}
		before, began := fs.Count("sync"), time.Now()
		var g sync.WaitGroup
		for range 1000 {
			events := r.events(1, 10)
			g.Go(func() {
				if _, err := r.Append(t.Context(), events, nil, pipeline.Disk); err != nil {
					t.Error(err)
				}
			})
		}
		g.Wait()
		// Two fsyncs, and between them twice one's time for those who do not come again.
		if n, took := fs.Count("sync")-before, time.Since(began); n > 3 || took > 4*fs.SyncTime {
			t.Errorf("%d fsyncs and %v for 1000 Appends at once", n, took)
		}
		r.mustStop()
		r.store.want(t, 1002)
	})
}

// Clients that each wait for their answer before they send again share fsyncs
// all of them; one that is alone is never held for others.
func TestGroupCommitOfSteadyClients(t *testing.T) {
	const clients, each = 8, 100
	bubble.Test(t, func(t *testing.T) {
		fs := waltest.New()
		fs.SyncTime = time.Millisecond
		r := start(t, options(), fs, newStore())
		before, began := fs.Count("sync"), time.Now()
		for range each {
			r.must(pipeline.Disk, 1)
		}
		if n, took := fs.Count("sync")-before, time.Since(began); n != each || took != each*fs.SyncTime {
			t.Errorf("%d fsyncs and %v for %d Appends, one after the other", n, took, each)
		}
		before, began = fs.Count("sync"), time.Now()
		var g sync.WaitGroup
		for range clients {
			batches := make([][]pipeline.Event, each)
			for i := range batches {
				batches[i] = r.events(1, 10)
			}
			g.Go(func() {
				for _, events := range batches {
					if _, err := r.Append(t.Context(), events, nil, pipeline.Disk); err != nil {
						t.Error(err)
					}
					time.Sleep(fs.SyncTime / 10) // its way and back
				}
			})
		}
		g.Wait()
		if n, took := fs.Count("sync")-before, time.Since(began); n > each*5/4 || took > each*fs.SyncTime*3/2 {
			t.Errorf("%d fsyncs and %v for %d Appends of each of %d clients", n, took, each, clients)
		}
		r.mustStop()
		r.store.want(t, (clients+1)*each)
	})
}

func TestDiskLimit(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.MaxDisk, opts.RollRows = 20_000, 10
		r := start(t, opts, waltest.New(), newStore())
		r.store.setFail(func(string) (error, error) { return nil, errStore })
		taken := 0
		for {
			err := r.append(pipeline.Disk, 1)
			if errors.Is(err, ErrFull) {
				r.next--
				break
			}
			if err != nil || taken > 1000 {
				t.Fatalf("%v after %d", err, taken)
			}
			taken++
		}
		if s := r.Stats(); s.Disk > opts.MaxDisk+500 || s.Disk < opts.MaxDisk-500 {
			t.Errorf("%d bytes at the limit of %d", s.Disk, opts.MaxDisk)
		}
		if err := r.append(pipeline.Memory, 1); !errors.Is(err, ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
		r.next--
		r.store.setFail(nil)
		time.Sleep(opts.Backoff.Max * 2)
		synctest.Wait()
		r.must(pipeline.Disk, 1)
		r.mustStop()
		r.store.want(t, taken+1)
		if s := r.Stats(); s.Disk != 0 {
			t.Errorf("%d bytes at the end, want 0", s.Disk)
		}
	})
}

// While the disk fails nothing is taken that would be lost; when it works again,
// all goes on. What memory acknowledged stays.
func TestDiskFails(t *testing.T) {
	for _, op := range []string{"write", "sync", "open"} {
		t.Run(op, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				r := start(t, options(), waltest.New(), newStore())
				var taken, refused []uint64
				try := func(d pipeline.Durability) error {
					id := r.next
					err := r.append(d, 1)
					if err == nil {
						taken = append(taken, id)
					} else {
						refused = append(refused, id)
					}
					return err
				}
				try(pipeline.Disk)
				try(pipeline.Memory)
				r.fs.Fail(func(o, path string) error {
					if o == op && (op != "open" || strings.HasSuffix(path, ".wal")) {
						return waltest.ErrFault
					}
					return nil
				})
				if op == "open" {
					time.Sleep(91 * time.Second) // the next batch cannot begin
				}
				try(pipeline.Memory) // taken: nothing is known yet
				if err := try(pipeline.Disk); !errors.Is(err, ErrUnavailable) {
					t.Errorf("got %v, want ErrUnavailable", err)
				}
				for range 50 {
					if err := try(pipeline.Memory); !errors.Is(err, ErrUnavailable) {
						t.Errorf("got %v, want ErrUnavailable", err)
					}
					time.Sleep(5 * time.Second)
				}
				if s := r.Stats(); s.Error == "" {
					t.Error("the status does not tell")
				}
				r.fs.Fail(nil)
				time.Sleep(2 * probeWait)
				synctest.Wait()
				if err := try(pipeline.Disk); err != nil {
					t.Errorf("after the fault: %v", err)
				}
				time.Sleep(2 * time.Minute)
				r.mustStop()
				got := r.store.ids(t)
				slices.Sort(got)
				if !slices.Equal(got, taken) {
					t.Errorf("stored %v, want those acknowledged, %v, and none of %v", got, taken, refused)
				}
				r.wantSegments(0)
				if s := r.Stats(); s.Disk != 0 || s.Error != "" {
					t.Errorf("stats %+v at the end", s)
				}
			})
		})
	}
}

// If the fsync at a roll fails, events acknowledged from memory are still stored, and the next batch follows at once.
func TestFailedRoll(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.RollRows = 1
		fs := waltest.New()
		fs.SyncTime = time.Millisecond
		r := start(t, opts, fs, newStore())
		fs.Fail(func(op, path string) error {
			if op == "sync" && strings.HasSuffix(path, "01.wal") {
				return waltest.ErrFault
			}
			return nil
		})
		r.must(pipeline.Memory, 1)
		time.Sleep(fs.SyncTime / 2) // its fsync is under way
		r.must(pipeline.Memory, 1)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		r.store.want(t, 2)
		r.mustStop()
	})
}

// A batch with a failed write rolls at the usual number of events: kept events count.
func TestRollLimitAfterFailedWrite(t *testing.T) {
	for name, limit := range map[string]func(*Options){
		"rows":  func(o *Options) { o.RollRows = 10 },
		"bytes": func(o *Options) { o.RollBytes = 10_000 },
		"blobs": func(o *Options) { o.SegmentBytes = 60_000 },
	} {
		opts := options()
		limit(&opts)
		want, got := eventsUntilRoll(t, opts, false), eventsUntilRoll(t, opts, true)
		if want < 9 || got != want {
			t.Errorf("%s: the roll came after %d events, want %d as without a failed write, and at least 9", name, got, want)
		}
	}
}

// eventsUntilRoll appends events with blobs until the first object is stored, and returns how many it has. The
// write of the first six may fail.
func eventsUntilRoll(t *testing.T, opts Options, fails bool) (n int) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		r := start(t, opts, waltest.New(), newStore())
		one := func(d pipeline.Durability) {
			events := r.events(1, 0)
			if _, err := r.Append(t.Context(), events, withBlobs(&events[0], 0, 4), d); err != nil {
				t.Fatal(err)
			}
		}
		if fails {
			r.fs.Fail(func(op, path string) error {
				if op == "write" && strings.HasSuffix(path, ".wal") {
					return waltest.ErrFault
				}
				return nil
			})
		}
		for range 6 {
			one(pipeline.Memory)
		}
		time.Sleep(2 * flushWait)
		if failed := r.Stats().Error != ""; failed != fails {
			t.Fatalf("the write failed: %t, want %t", failed, fails)
		}
		r.fs.Fail(nil)
		time.Sleep(2 * probeWait)
		for i := 0; len(r.store.keys()) == 0 && i < 100; i++ {
			one(pipeline.Disk)
			synctest.Wait()
		}
		n = len(r.store.ids(t))
		r.mustStop()
	})
	return n
}

// Rejected events stay away, even if power fails before the cut after a failed fsync reaches the disk.
func TestRefusedStaysAway(t *testing.T) {
	for seed := range uint64(20) {
		bubble.Test(t, func(t *testing.T) {
			r := start(t, options(), waltest.New(), newStore())
			r.fs.FailAt("syncdir", 1, 0)
			r.store.setFail(func(string) (error, error) { return nil, errStore })
			r.must(pipeline.Memory, 1)
			time.Sleep(time.Second)
			if err := r.append(pipeline.Disk, 1); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("got %v, want ErrUnavailable", err)
			}
			after := r.fs.PowerLoss(rand.New(rand.NewPCG(seed, 1)))
			r.stop()
			r.store.setFail(nil)
			start(t, options(), after, r.store).mustStop()
			if got := r.store.ids(t); slices.Contains(got, 2) {
				t.Errorf("stored %v: event 2 was refused", got)
			}
		})
	}
}

// A batch that could not be encoded is tried again, in the drain too, and holds up no other.
func TestEncodeFails(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.Uploads, opts.RollRows = 1, 1
		r := start(t, opts, waltest.New(), newStore())
		r.fs.Fail(func(op, path string) error {
			if op == "read" && strings.HasSuffix(path, "01.wal") {
				return waltest.ErrFault
			}
			return nil
		})
		r.must(pipeline.Disk, 1)
		r.must(pipeline.Disk, 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.store.ids(t); !slices.Equal(got, []uint64{2}) {
			t.Errorf("stored %v, want the second batch", got)
		}
		if s := r.Stats(); s.Sealed != 1 || s.Error == "" {
			t.Errorf("stats %+v, want one sealed and the error", s)
		}
		time.AfterFunc(3*time.Second, func() { r.fs.Fail(nil) })
		r.mustStop()
		r.store.want(t, 2)
		r.wantSegments(0)
	})
}

// Each single fault, once: whatever operation fails, acknowledged events are stored exactly once, and nothing else.
func TestEachFault(t *testing.T) {
	for _, op := range []string{"write", "sync", "truncate", "syncdir", "open", "remove", "rename", "read"} {
		for at := 1; at < 20; at++ {
			bubble.Test(t, func(t *testing.T) {
				opts := options()
				opts.RollRows = 7
				fs := waltest.New()
				r := build(t, opts, fs, newStore())
				fs.FailAt(op, at, 50)
				if err := r.Open(); err != nil {
					return
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- r.Run(ctx) }()
				var taken []uint64
				for i := range 20 {
					for _, d := range []pipeline.Durability{pipeline.Memory, pipeline.Disk} {
						id := r.next
						if err := r.append(d, 1); err == nil {
							taken = append(taken, id)
						}
					}
					if i%5 == 4 {
						time.Sleep(5 * time.Second)
					}
				}
				time.Sleep(2 * time.Minute)
				cancel()
				if err := <-done; err != nil {
					t.Errorf("%s %d: Run: %v", op, at, err)
				}
				got := r.store.ids(t)
				slices.Sort(got)
				if !slices.Equal(got, taken) {
					t.Errorf("%s %d: stored %v, want %v", op, at, got, taken)
				}
				if s := r.Stats(); s.Disk != 0 {
					t.Errorf("%s %d: %d bytes at the end", op, at, s.Disk)
				}
				r.wantSegments(0)
			})
		}
	}
}

// With a full disk, objects are encoded in memory, and uploads free space.
func TestFullDisk(t *testing.T) {
	for _, format := range []pipeline.Format{pipeline.Parquet, pipeline.NDJSON} {
		bubble.Test(t, func(t *testing.T) {
			opts := options()
			opts.Format = format
			r := start(t, opts, waltest.New(), newStore())
			r.store.setFail(func(string) (error, error) { return nil, errStore })
			r.fs.SetRoom(50_000)
			taken, full := []uint64{}, 0
			for range 100 {
				id := r.next
				events := r.events(1, 1000)
				if _, err := r.Append(t.Context(), events, nil, pipeline.Disk); err == nil {
					taken = append(taken, id)
				} else if errors.Is(err, ErrUnavailable) && errors.Is(err, syscall.ENOSPC) {
					full++
				} else {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
			}
			if full == 0 || len(taken) < 30 {
				t.Fatalf("taken %d, refused %d", len(taken), full)
			}
			r.fs.SetRoom(0)
			r.store.setFail(nil)
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			id := r.next
			if err := r.append(pipeline.Disk, 1); err != nil {
				t.Errorf("after the uploads: %v", err)
			}
			r.mustStop()
			got := r.store.ids(t)
			slices.Sort(got)
			if !slices.Equal(got, append(taken, id)) {
				t.Errorf("stored %v, want %v", got, taken)
			}
			r.wantSegments(0)
		})
	}
}

// A crash costs at most the active batch of what memory acknowledged, however long sealed ones wait for the bucket.
func TestSealedSurvivesPowerLoss(t *testing.T) {
	for seed := range uint64(20) {
		bubble.Test(t, func(t *testing.T) {
			opts := options()
			opts.RollRows = 10
			r := start(t, opts, waltest.New(), newStore())
			r.store.setFail(func(string) (error, error) { return nil, errStore })
			for range 55 {
				r.must(pipeline.Memory, 1)
			}
			time.Sleep(time.Second)
			after := r.fs.PowerLoss(rand.New(rand.NewPCG(seed, 1)))
			r.stop()
			r.store.setFail(nil)
			start(t, opts, after, r.store).mustStop()
			if got := r.store.ids(t); len(got) < 50 {
				t.Errorf("%d of 55 events are left, want 50", len(got))
			}
		})
	}
}

// A segment that cannot be removed counts as disk in use until it can.
func TestReleaseFails(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		r := start(t, options(), waltest.New(), newStore())
		r.fs.Fail(func(op, path string) error {
			if (op == "remove" || op == "rename") && strings.HasSuffix(path, ".wal") {
				return waltest.ErrFault
			}
			return nil
		})
		r.must(pipeline.Bucket, 1)
		time.Sleep(10 * time.Second)
		if s := r.Stats(); s.Disk == 0 || s.Stored != 1 || s.Sealed != 0 {
			t.Errorf("stats %+v, want the segment's bytes counted", s)
		}
		r.fs.Fail(nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := r.Stats(); s.Disk != 0 {
			t.Errorf("stats %+v, want the segment gone", s)
		}
		r.wantSegments(0)
		r.mustStop()
	})
}

func TestDrainTimeout(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		r := start(t, opts, waltest.New(), newStore())
		r.store.setFail(func(string) (error, error) { return nil, errStore })
		r.must(pipeline.Disk, 3)
		began := time.Now()
		err := r.stop()
		if took := time.Since(began); err == nil || took != opts.Drain {
			t.Errorf("Run: %v after %v, want an error after %v", err, took, opts.Drain)
		}
		r.wantSegments(1)
		r.store.setFail(nil)
		again := start(t, opts, r.fs, r.store)
		again.mustStop()
		r.store.want(t, 3)
		r.wantSegments(0)
	})
}

// A store that hangs is cut off by the drain's end.
func TestDrainHangingStore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.PutTimeout = time.Hour
		r := start(t, opts, waltest.New(), newStore())
		r.store.delay = time.Hour
		r.must(pipeline.Disk, 3)
		began := time.Now()
		err := r.stop()
		if err == nil || time.Since(began) != opts.Drain {
			t.Fatalf("Run: %v after %v, want an error after %v", err, time.Since(began), opts.Drain)
		}
		if want := "(uploads took longer than 30s)"; !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want it to say %s", err, want)
		}
	})
}

// Batches that still wait at the drain's end are not encoded any more. Their tickets learn that they wait.
func TestDrainEncodesNothingMore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const batches = 20
		opts := options()
		opts.RollRows, opts.ObjectTimeout = 1, time.Hour
		r := start(t, opts, waltest.New(), newStore())
		r.store.setFail(func(string) (error, error) { return nil, errStore })
		var encoded atomic.Int64
		r.fs.Fail(func(op, path string) error {
			if op == "open" && strings.HasSuffix(path, spoolSuffix) {
				encoded.Add(1)
			}
			return nil
		})
		answers := make(chan error, batches)
		for range batches {
			go func(events []pipeline.Event) {
				_, err := r.Append(t.Context(), events, nil, pipeline.Bucket)
				answers <- err
			}(r.events(1, 10))
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		if err := r.stop(); err == nil || time.Since(began) != opts.Drain {
			t.Errorf("Run: %v after %s, want an error after %s", err, time.Since(began), opts.Drain)
		}
		if got := int(encoded.Load()); got != opts.Uploads {
			t.Errorf("%d batches were encoded, want the %d of the uploads", got, opts.Uploads)
		}
		for range batches {
			if err := <-answers; !errors.Is(err, pipeline.ErrPending) {
				t.Errorf("an answer of %v, want %v", err, pipeline.ErrPending)
			}
		}
		if took := time.Since(began); took != opts.Drain {
			t.Errorf("answers after %s, want %s", took, opts.Drain)
		}
		r.fs.Fail(nil)
		r.store.setFail(nil)
		again := start(t, opts, r.fs, r.store)
		again.mustStop()
		r.store.want(t, batches)
		r.wantSegments(0)
	})
}

// Seqs go on over restarts, also when the clock goes back.
func TestSeqIsMonotonic(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := waltest.New()
		fs.Put("/wal/SEQ", []byte("4000000000000000")) // in µs: the year 2096
		var last uint64
		for round := range 6 {
			r := start(t, options(), fs, newStore())
			for range 3 {
				events := r.events(4, 10)
				if _, err := r.Append(t.Context(), events, nil, pipeline.Disk); err != nil {
					t.Fatal(err)
				}
				for _, e := range events {
					if e.Seq <= last || e.Seq < 4000000000000000 {
						t.Errorf("seq %d after %d", e.Seq, last)
					}
					last = e.Seq
				}
			}
			if round%2 == 0 {
				r.mustStop() // released: the SEQ file remembers
			} else {
				fs = fs.Kill() // not released: the segment does
				r.stop()
			}
		}
	})
}

// Damage found at the start, or while a batch waits, costs the damaged record; the rest is stored and the file kept.
func TestDamage(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := waltest.New()
		r := start(t, options(), fs, newStore())
		for range 3 {
			r.must(pipeline.Disk, 1)
		}
		after := fs.Kill()
		r.stop()
		name := "/wal/0000000000000001.wal"
		b, _ := after.Get(name)
		b[len(b)-24-3] ^= 1 // in front of the end mark
		after.Put(name, b)
		opts, told := options(), ""
		opts.Failed = func(f pipeline.Failure) { told += f.Code }
		again := start(t, opts, after, r.store)
		synctest.Wait()
		r.store.want(t, 2)
		if told != "damaged_segment" {
			t.Errorf("reported %q", told)
		}
		if _, ok := after.Get(name + ".corrupt"); !ok || !again.logs.has("damaged") {
			t.Error("the damaged segment is not kept, or nothing is said of it")
		}
		again.mustStop()
	})
}

// A record that this version cannot read keeps no other from its object, and the process from no start.
func TestForeignRecord(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := waltest.New()
		key := pipeline.Key{Prefix: "events/", Time: time.Now(), Receiver: "game1", Seq: 5, Format: pipeline.NDJSON}
		b := wal.AppendRecord(nil, 5, []byte("from the future"))
		log, err := wal.Open(fs, "/wal")
		if err != nil {
			t.Fatal(err)
		}
		for _, good := range [][]byte{nil, wal.AppendRecord(nil, 6, appendRecord(nil, []pipeline.Event{event(1, 1)}))} {
			s, err := log.Create(wal.Header{Key: key.String(), FirstSeq: 5, Time: 1})
			if err != nil {
				t.Fatal(err)
			}
			s.Write(append(slices.Clone(b), good...))
			s.Sync()
			s.Close()
			key.Seq++
		}
		log.Close()
		opts := options()
		var failed []pipeline.Failure
		opts.Failed = func(f pipeline.Failure) { failed = append(failed, f) }
		opts.Uploads = 1
		r := start(t, opts, fs, newStore())
		synctest.Wait()
		r.store.want(t, 1)
		codes := ""
		for _, f := range failed {
			codes += f.Code + " "
			if f.Stage != "batcher" || f.Code == "unreadable_record" && string(f.Raw) != "from the future" {
				t.Errorf("failure %+v", f)
			}
		}
		if want := strings.Repeat("unreadable_record damaged_segment ", 2); codes != want {
			t.Errorf("reported %s, want %s", codes, want)
		}
		names, _ := fs.ReadDir("/wal")
		if n := len(slices.DeleteFunc(names, func(s string) bool { return !strings.HasSuffix(s, ".corrupt") })); n != 2 {
			t.Errorf("%d files kept, want 2", n)
		}
		r.mustStop()
	})
}

// Small records are encoded many at a time, large ones alone, and all in their order.
func TestRecordsOfAnySize(t *testing.T) {
	for _, format := range []pipeline.Format{pipeline.Parquet, pipeline.NDJSON} {
		bubble.Test(t, func(t *testing.T) {
			opts := options()
			opts.Format = format
			r := start(t, opts, waltest.New(), newStore())
			rnd := rand.New(rand.NewPCG(1, 2))
			const wide, wider = 1001, 20_001
			sizes := []int{1, maxHeld/2 - 100, maxHeld / 2, maxHeld, 3 * maxHeld, 1, maxHeld - 50, wide, 1, wider, 1, wide}
			for range 200 {
				sizes = append(sizes, []int{rnd.IntN(100), rnd.IntN(maxHeld), rnd.IntN(3 * maxHeld)}[rnd.IntN(3)])
			}
			var sent []int // the size of each event
			for _, size := range sizes {
				n := 1 + rnd.IntN(3)
				switch size {
				case wide:
					n = 3 * maxRecord / wide // several records
				case wider:
					n = maxGather/wider + 1 // in a separate write
				}
				sent = append(sent, slices.Repeat([]int{size}, n)...)
				if _, err := r.Append(t.Context(), r.events(n, size), nil, pipeline.Memory); err != nil {
					t.Fatal(err)
				}
			}
			r.mustStop()
			r.store.want(t, len(sent))
			events, err := r.store.stored()
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range events {
				if id := idOf(e); id != uint64(i+1) {
					t.Fatalf("row %d is event %d", i, id)
				}
				if want := event(uint64(i+1), sent[i]).Properties; !bytes.Equal(e.Properties, want) {
					t.Fatalf("event %d: %.50q of %d bytes, want %d", i+1, e.Properties, len(e.Properties), len(want))
				}
			}
		})
	}
}

// Memory for what waits to be written is bounded, however fast batches roll.
func TestGatherIsBounded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		opts := options()
		opts.RollRows = 1
		r := build(t, opts, waltest.New(), newStore())
		if err := r.Open(); err != nil {
			t.Fatal(err)
		}
		var taken atomic.Int64
		for range 50 { // no write has started
			events := r.events(1, 1<<20)
			go func() {
				if _, err := r.Append(t.Context(), events, nil, pipeline.Memory); err != nil {
					t.Error(err)
				}
				taken.Add(1)
			}()
		}
		synctest.Wait()
		if n := taken.Load(); n > maxGather>>20 {
			t.Errorf("%d MB gathered, want %d at most", n, maxGather>>20)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.store.want(t, 50)
	})
}

// Random operations, faults, kills and power losses against a model: acknowledged events are stored once, rejected ones
// never, and seqs rise.
func TestRandomKills(t *testing.T) {
	seeds := 12
	if os.Getenv("PENSTOCK_TEST_ALL") != "" {
		seeds = 400 // seven minutes with -race
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { randomKills(t, rand.New(rand.NewPCG(seed, 99))) })
		})
	}
}

func randomKills(t *testing.T, rnd *rand.Rand) {
	store, fs := newStore(), waltest.New()
	opts := options()
	opts.RollRows, opts.Uploads = int64(5+rnd.IntN(50)), 1+rnd.IntN(3)
	if rnd.IntN(2) == 0 {
		opts.Format = pipeline.Parquet
	}
	var (
		mu      sync.Mutex
		acked   = map[uint64]pipeline.Durability{} // not lost by the crash
		refused = map[uint64]bool{}
		lossy   = map[uint64]bool{} // acknowledged from memory, then a crash: may be there or not
		next    = uint64(1)
		lastSeq uint64
	)
	for range 6 {
		store.mu.Lock()
		store.rate = []float64{0, 0.1, 0.9}[rnd.IntN(3)]
		store.mu.Unlock()
		r := start(t, opts, fs, store)
		// Single faults; not more than one at a time, and none that the machine does not survive.
		faultRate, faults := []float64{0, 0.02, 0.3}[rnd.IntN(3)], rand.New(rand.NewPCG(rnd.Uint64(), 1))
		power := rnd.IntN(2) == 0
		fs.Fail(func(op, _ string) error {
			if op == "truncate" || op == "read" || op == "sync" && power || faults.Float64() >= faultRate {
				return nil
			}
			return waltest.ErrFault
		})
		var slow chan struct{} // blobs take their time, and the batch may be rolled meanwhile
		if rnd.IntN(2) == 0 {
			slow = make(chan struct{}, 1)
		}
		var g sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		first := lastSeq
		for range 1 + rnd.IntN(4) {
			work := rand.New(rand.NewPCG(rnd.Uint64(), 2))
			g.Go(func() {
				for range 60 {
					time.Sleep(time.Duration(work.IntN(3000)) * time.Millisecond)
					mu.Lock()
					n := 1 + work.IntN(4)
					events := make([]pipeline.Event, n)
					for i := range events {
						events[i] = event(next, work.IntN(2000))
						next++
					}
					mu.Unlock()
					d := pipeline.Durability(work.IntN(3))
					var blobs []pipeline.Blob
					for i := range events {
						if work.IntN(4) == 0 {
							blobs = append(blobs, withBlobs(&events[i], i, 1+work.IntN(2))...)
						}
					}
					began := time.Now()
					if slow != nil && len(blobs) > 0 {
						slow <- struct{}{} // one at a time: who waits for its lock does not let time pass
						began = time.Now()
						write, takes := blobs[0].Write, time.Duration(work.IntN(5))*time.Second
						blobs[0].Write = func(w io.Writer) error { time.Sleep(takes); return write(w) }
					}
					_, err := r.Append(ctx, events, blobs, d)
					if slow != nil && len(blobs) > 0 {
						<-slow
					}
					if took := time.Since(began); d != pipeline.Bucket && took > 10*time.Second {
						t.Errorf("an Append (%v) took %s", d, took)
					}
					mu.Lock()
					for _, e := range events {
						switch {
						case err == nil:
							acked[idOf(e)] = d
							lastSeq = max(lastSeq, e.Seq)
							if e.Seq <= first {
								t.Errorf("seq %d after a restart at %d", e.Seq, first)
							}
						case errors.Is(err, ErrUnavailable), errors.Is(err, ErrFull), errors.Is(err, ErrClosed):
							refused[idOf(e)] = true
						}
					}
					mu.Unlock()
					if ctx.Err() != nil {
						return
					}
				}
			})
		}
		time.Sleep(time.Duration(rnd.IntN(100_000)) * time.Millisecond)
		switch {
		case rnd.IntN(4) == 0: // a clean stop; batches that cannot be uploaded stay
			fs.Fail(nil)
			store.mu.Lock()
			store.rate = 0
			store.mu.Unlock()
			err := r.stop()
			if err != nil {
				t.Errorf("Run: %v", err)
			}
			cancel()
			g.Wait()
		default:
			mu.Lock()
			if power {
				fs = fs.PowerLoss(rnd)
			} else {
				fs = fs.Kill()
			}
			for id, d := range acked {
				if d == pipeline.Memory {
					delete(acked, id)
					lossy[id] = true
				}
			}
			mu.Unlock()
			cancel()
			g.Wait()
			r.stop()
			mu.Lock()
			for id, d := range acked { // acknowledged by the dying process, from memory
				if d == pipeline.Memory {
					delete(acked, id)
					lossy[id] = true
				}
			}
			mu.Unlock()
		}
	}
	store.rate = 0
	r := start(t, opts, fs, store)
	r.mustStop()
	r.wantSegments(0)
	stored := map[uint64]bool{}
	for _, id := range store.ids(t) {
		stored[id] = true
		if refused[id] {
			t.Errorf("event %d was refused and is stored", id)
		}
	}
	for id, err := range store.broken {
		if !lossy[id] { // a power loss may leave a record without its blobs, and a sum that tells so
			t.Errorf("event %d: %v", id, err)
		}
	}
	for id, d := range acked {
		if !stored[id] {
			t.Errorf("event %d was acknowledged (%v) and is not stored", id, d)
		}
	}
	t.Logf("%d events, %d acknowledged and kept, %d refused, %d acknowledged from memory before a crash, "+
		"%d stored in %d objects",
		next-1, len(acked), len(refused), len(lossy), len(stored), len(store.keys()))
}

// The real file system under the whole, once.
func TestRealDisk(t *testing.T) {
	opts := options()
	opts.Dir, opts.Format, opts.RollRows = t.TempDir(), pipeline.Parquet, 500
	store := newStore()
	b := New(pipeline.Events, opts, store, slog.New(slog.NewTextHandler(io.Discard, nil)), prometheus.NewRegistry())
	if err := b.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	var g sync.WaitGroup
	for i := range 100 {
		g.Go(func() {
			for j := range 10 {
				events := []pipeline.Event{event(uint64(i*10+j)+1, 100)}
				if _, err := appendWait(t.Context(), b, events, nil, pipeline.Disk); err != nil {
					t.Error(err)
				}
			}
		})
	}
	g.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	store.want(t, 1000)
}
