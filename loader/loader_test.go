package loader

// All sleeps here are in bubbles (internal/testing/bubble): fake time, which takes none.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// world is a bucket, a queue, a table and a ledger in memory. fault, where it is
// set, is asked before each call; where it returns an error the call fails, and
// late says that it took effect all the same (its answer was lost).
type world struct {
	mu      sync.Mutex
	objects map[string][]byte
	metas   map[string]pipeline.Meta
	queue   []*delivery
	rows    map[rowKey]int  // how often it is there
	bad     map[string]bool // events whose name the table refuses, for their properties
	code    retry.Class     // of that refusal; 0: permanent
	broken  bool            // the table refuses every event
	view    bool            // a view behind the table throws
	letters []pipeline.DeadLetter
	kept    []pipeline.Failure // reported, to disk or not
	tokens  map[string]bool
	window  int // tokens remembered; 0: all
	order   []string
	ledger  map[string]pipeline.Load
	inserts int
	fault   func(call string) (err error, late bool)
	down    error
	etag    string    // of all objects; empty: "e"
	expired time.Time // rows before it are deleted at once
}

type rowKey struct {
	object     string
	row        uint32
	generation uint32
}

// count is how often a row is there, of whatever generation.
func (w *world) count(object string, row int) (n int) {
	for k, times := range w.rows {
		if k.object == object && k.row == uint32(row) {
			n += times
		}
	}
	return n
}

func newWorld() *world {
	return &world{objects: map[string][]byte{}, metas: map[string]pipeline.Meta{}, rows: map[rowKey]int{}, tokens: map[string]bool{}, ledger: map[string]pipeline.Load{}}
}

func (w *world) try(call string) (error, bool) {
	if w.down != nil && call != "receive" && call != "get" && call != "ack" {
		return w.down, false
	}
	if w.fault != nil {
		return w.fault(call)
	}
	return nil, false
}

type delivery struct {
	w        *world
	key      string
	attempt  int
	due      time.Time
	inFlight bool
	settled  bool
	extended int
}

func (d *delivery) Notifications() ([]pipeline.Notification, error) {
	return []pipeline.Notification{{Key: d.key}}, nil
}

func (d *delivery) Attempt() int { return d.attempt }
func (d *delivery) Extend() error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.extended++
	return nil
}

func (d *delivery) Ack(context.Context) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	err, late := d.w.try("ack")
	if err == nil || late {
		d.settled = true
	}
	if err != nil && !late {
		d.inFlight, d.due = false, time.Now().Add(time.Minute) // it will time out and come again
	}
	return err
}

func (d *delivery) Nak(delay time.Duration) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.inFlight, d.due = false, time.Now().Add(delay)
	return nil
}

func (w *world) Receive(ctx context.Context, max int) ([]Delivery, error) {
	for range 50 {
		w.mu.Lock()
		if err, _ := w.try("receive"); err != nil {
			w.mu.Unlock()
			return nil, err
		}
		var all []Delivery
		for _, d := range w.queue {
			if !d.settled && !d.inFlight && !time.Now().Before(d.due) && len(all) < max {
				d.inFlight = true
				d.attempt++
				all = append(all, d)
			}
		}
		w.mu.Unlock()
		if len(all) > 0 {
			return all, nil
		}
		if retry.Sleep(ctx, 100*time.Millisecond) != nil {
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

func (w *world) Get(_ context.Context, key string) (pipeline.Object, io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err, _ := w.try("get"); err != nil {
		return pipeline.Object{}, nil, err
	}
	b, ok := w.objects[key]
	if !ok {
		return pipeline.Object{}, nil, retry.As(retry.Permanent, errors.New("no such object"))
	}
	etag := w.etag
	if etag == "" {
		etag = "e"
	}
	return pipeline.Object{Key: key, ETag: etag, Size: int64(len(b)), Meta: w.metas[key]}, io.NopCloser(bytes.NewReader(b)), nil
}

func (w *world) Ping(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

// block is an insert into the world's table.
type block struct {
	w          *world
	wait       time.Duration
	object     string
	generation uint32
	events     []pipeline.Event
}

func (w *world) ChunkRows(_ []pipeline.Event, most int) int { return most }

func (w *world) NewBlock(_ context.Context, _, object string, generation uint32) (Block, error) {
	return &block{w: w, object: object, generation: generation}, nil
}

func (b *block) Append(events []pipeline.Event, _ []*pipeline.Typed) {
	for _, e := range events {
		e.Name, e.Properties = bytes.Clone(e.Name), bytes.Clone(e.Properties)
		b.events = append(b.events, e)
	}
}

func (b *block) Insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error {
	if err := retry.Sleep(ctx, b.wait); err != nil {
		return err
	}
	w, object, generation, events := b.w, b.object, b.generation, b.events
	n := 0
	for part, err := range again {
		for i := range part {
			if err != nil || n >= len(events) || part[i].Row != events[n].Row {
				return fmt.Errorf("the events came otherwise the second time: %w", err)
			}
			n++
		}
	}
	if n != len(events) {
		return fmt.Errorf("%d events came the second time, %d the first", n, len(events))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	err, late := w.try("insert")
	if err != nil && !late {
		return err
	}
	w.inserts++
	for i := range events {
		if err := w.refuses(&events[i]); err != nil {
			return err
		}
		if d := events[i].ReceivedAt / day; d != events[0].ReceivedAt/day {
			return retry.As(retry.Permanent, errors.New("a block into two partitions"))
		}
	}
	if !w.tokens[token] {
		w.tokens[token] = true
		w.order = append(w.order, token)
		if w.window > 0 && len(w.order) > w.window {
			delete(w.tokens, w.order[0])
			w.order = w.order[1:]
		}
		for i := range events {
			if !pipeline.Millis(events[i].ReceivedAt).Before(w.expired) {
				w.rows[rowKey{object, events[i].Row, generation}]++
			}
		}
	}
	if err == nil && w.view {
		return retry.AsCode(retry.Permanent, 70, errors.New("while pushing to view v"))
	}
	return err
}

func (w *world) Present(_ context.Context, _, object string, generation uint32, first, end int64, _ [2]int64) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err, _ := w.try("present"); err != nil {
		return false, err
	}
	for k, n := range w.rows {
		if k.object == object && k.generation == generation && n > 0 && int64(k.row) >= first && int64(k.row) < end {
			return true, nil
		}
	}
	return false, nil
}

func (w *world) Newest(_ context.Context, _, object string, _ [2]int64) (generation uint32, there bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err, _ := w.try("newest"); err != nil {
		return 0, false, err
	}
	for k := range w.rows {
		if k.object == object {
			generation, there = max(generation, k.generation), true
		}
	}
	return generation, there, nil
}

func (w *world) Expired(context.Context, string) (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err, _ := w.try("expired")
	return w.expired, err
}

func (w *world) DeleteOlder(_ context.Context, _, object string, generation uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err, late := w.try("delete")
	if err == nil || late {
		for k := range w.rows {
			if k.object == object && k.generation < generation {
				delete(w.rows, k)
			}
		}
	}
	return err
}

func (w *world) Try(context.Context, string) (Trial, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err, _ := w.try("try")
	return trial{w}, err
}

func (w *world) refuses(e *pipeline.Event) error {
	if w.broken || w.bad[string(e.Name)] && string(e.Properties) != "{}" {
		class := retry.Permanent
		if w.code == unknownClass {
			class = retry.Unknown
		}
		return retry.AsCode(class, 70, fmt.Errorf("%s cannot be converted", e.Name))
	}
	return nil
}

type trial struct{ w *world }

func (t trial) Insert(_ context.Context, object string, events []pipeline.Event) error {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if err, _ := t.w.try("trial"); err != nil {
		return err
	}
	for i := range events {
		if err := t.w.refuses(&events[i]); err != nil {
			return err
		}
	}
	return nil
}

func (trial) Close(context.Context) error { return nil }

func (w *world) DeadLetter(_ context.Context, d pipeline.DeadLetter) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err, late := w.try("letter")
	if err == nil || late {
		w.letters = append(w.letters, d)
	}
	return err
}

func (w *world) Report(f pipeline.Failure) { w.Keep(context.Background(), []pipeline.Failure{f}) }

func (w *world) Keep(_ context.Context, failures []pipeline.Failure) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, failures...)
	return nil
}

func (w *world) Load(_ context.Context, key string) (pipeline.Load, bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err, _ := w.try("ledger"); err != nil {
		return pipeline.Load{}, false, err
	}
	l, ok := w.ledger[key]
	return l, ok, nil
}

func (w *world) SaveLoad(_ context.Context, l pipeline.Load) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err, late := w.try("save")
	if err == nil || late {
		if have, ok := w.ledger[l.Key]; !ok || l.Version() >= have.Version() {
			l.Refused = slices.Clone(l.Refused)
			w.ledger[l.Key] = l
		}
	}
	return err
}

// put stores an object of n events and queues its notification.
func (w *world) put(t *testing.T, n int, startMs int64, stepMs int64) string {
	t.Helper()
	return w.putNamed(t, n, startMs, stepMs, func(int) string { return "n" })
}

func (w *world) putNamed(t *testing.T, n int, startMs int64, stepMs int64, name func(int) string) string {
	t.Helper()
	key := pipeline.Key{Prefix: "events/", Time: pipeline.Millis(startMs), Receiver: "r", Seq: uint64(len(w.objects) + 1), Format: pipeline.NDJSON}.String()
	events := make([]pipeline.Event, n)
	for i := range events {
		events[i] = pipeline.Event{ID: pipeline.NewUUIDv7(startMs), Project: []byte("p"), Name: []byte(name(i)), Timestamp: startMs,
			ReceivedAt: startMs + int64(i)*stepMs, Seq: uint64(i), Properties: []byte(`{"a":1}`), Context: []byte(`{}`)}
	}
	var b bytes.Buffer
	enc, err := codec.NewEncoder(&b, pipeline.NDJSON, "r")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(enc.Encode(events), enc.Close()); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	w.objects[key] = b.Bytes()
	w.metas[key] = pipeline.Meta{Schema: 1, Rows: int64(n), SHA256: hex.EncodeToString(sum[:])}
	w.notify(key)
	return key
}

func (w *world) notify(key string) *delivery {
	d := &delivery{w: w, key: key}
	w.queue = append(w.queue, d)
	return d
}

func (w *world) open() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.queue {
		if !d.settled {
			n++
		}
	}
	return n
}

// check holds the rows against the objects: each once, and no other.
func (w *world) check(t *testing.T) {
	t.Helper()
	want := 0
	for key, m := range w.metas {
		want += int(m.Rows)
		for i := range m.Rows {
			if got := w.count(key, int(i)); got != 1 {
				t.Fatalf("row %d of %s is there %d times", i, key, got)
			}
		}
	}
	if len(w.rows) != want {
		t.Errorf("%d rows, want %d", len(w.rows), want)
	}
}

func (w *world) loader(t *testing.T, name string) *Loader {
	return New(pipeline.Events, Options{Name: name, Workers: 3, ChunkRows: 10, ChunkBytes: 1 << 20, Attempts: 1000, Unfinished: 5, Isolation: NewIsolation(nil), Extend: 10 * time.Second,
		Backoff: retry.Backoff{Min: time.Second, Max: time.Minute}, Probe: retry.Backoff{Min: time.Second, Max: 10 * time.Second}, Drain: 30 * time.Second},
		Parts{Queue: w, Source: Source{Store: w, Dir: t.TempDir()}, Table: w, Ledger: w, Letters: w, Report: w},
		slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// start runs a loader until the returned function is called.
func start(t *testing.T, l *Loader) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

const noon = int64(1795348800000) // 2026-11-22T12:00:00Z

func TestLoadsEachOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, n := range []int{1, 9, 10, 11, 35, 20} {
			key := w.put(t, n, noon, 1)
			w.notify(key)
		}
		l := w.loader(t, "a")
		stop := start(t, l)
		time.Sleep(time.Minute)
		if err := stop(); err != nil {
			t.Error(err)
		}
		w.check(t)
		if n := w.open(); n != 0 {
			t.Errorf("%d deliveries are not settled", n)
		}
		if want := 1 + 1 + 1 + 2 + 4 + 2; w.inserts > 2*want {
			t.Errorf("%d inserts for %d chunks", w.inserts, want)
		}
		if s := l.Stats(); s.Objects < 6 || s.Error != "" {
			t.Errorf("stats %+v", s)
		}
	})
}

// An object over midnight: no block goes into two partitions.
func TestCutsAtMidnight(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(t, 25, noon+12*3600*1000-7, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		stop()
		w.check(t)
	})
}

// Each call fails, before or after it took effect, at a rate; two loaders have
// the same deliveries; the tokens are forgotten at once. Each row is there once.
func TestOnceUnderFaults(t *testing.T) {
	for _, rate := range []float64{0.1, 0.5} {
		for _, window := range []int{0, 1} {
			t.Run(fmt.Sprintf("rate %v, window %d", rate, window), func(t *testing.T) {
				bubble.Test(t, func(t *testing.T) {
					seed := rand.Uint64()
					t.Logf("seed %d", seed)
					rnd := rand.New(rand.NewPCG(seed, 1))
					w := newWorld()
					w.window = window
					w.fault = func(call string) (error, bool) {
						if rnd.Float64() >= rate {
							return nil, false
						}
						class := retry.Outage
						if rnd.IntN(3) == 0 {
							class = retry.Unknown
						}
						return retry.As(class, errors.New("fault at "+call)), rnd.IntN(2) == 0
					}
					for range 12 {
						w.put(t, 1+rnd.IntN(40), noon+rnd.Int64N(24*3600*1000), 1)
					}
					names := []string{"a"}
					if window == 0 { // without tokens nothing tells two at the same moment apart
						for _, d := range slices.Clone(w.queue) {
							w.queue = append(w.queue, &delivery{w: w, key: d.key})
						}
						names = append(names, "b")
					}
					var stops []func() error
					for _, name := range names {
						stops = append(stops, start(t, w.loader(t, name)))
					}
					for range 1000 {
						time.Sleep(10 * time.Minute)
						if w.open() == 0 {
							break
						}
					}
					for _, stop := range stops {
						stop()
					}
					if n := w.open(); n != 0 {
						t.Fatalf("%d deliveries are not settled", n)
					}
					w.check(t)
				})
			})
		}
	}
}

// killAt lets a loader work until its call of number point, which takes effect
// where late says so, and another one go on.
func (w *world) killAt(t *testing.T, point int, late bool) {
	calls := 0
	w.fault = func(string) (error, bool) {
		calls++
		if calls < point {
			return nil, false
		}
		return retry.As(retry.Outage, errors.New("killed")), late && calls == point // then nothing works any more
	}
	stop := start(t, w.loader(t, "a"))
	time.Sleep(5 * time.Second)
	stop()
	w.mu.Lock()
	w.fault = nil
	for _, d := range w.queue {
		d.inFlight = false
	}
	w.mu.Unlock()
	stop = start(t, w.loader(t, "b"))
	time.Sleep(10 * time.Minute)
	stop()
}

// A loader killed after each call, at every point: the next one goes on.
func TestKilledAtEveryPoint(t *testing.T) {
	for point := range 25 {
		for _, late := range []bool{false, true} {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld()
				w.window = 1
				w.put(t, 35, noon, 1)
				w.killAt(t, point, late)
				w.check(t)
				if n := w.open(); n != 0 {
					t.Errorf("point %d: %d deliveries are not settled", point, n)
				}
			})
		}
	}
}

// The ledger is lost, and the tokens are forgotten: what is there is found.
func TestLedgerLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, n := range []int{5, 35} {
			w.put(t, n, noon, 1)
		}
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		w.mu.Lock()
		clear(w.ledger)
		clear(w.tokens)
		for key := range w.objects {
			w.notify(key)
		}
		w.mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		w.check(t)
		if len(w.ledger) != 2 {
			t.Errorf("the ledger has %d entries, want 2", len(w.ledger))
		}
	})
}

// Rows deleted by hand while the table still knows their tokens: the ledger
// does not say loaded before they are there again.
func TestSwallowedInsertIsNotLoaded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		w.mu.Lock()
		clear(w.ledger)
		clear(w.rows)
		w.notify(key)
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		w.mu.Lock()
		if w.ledger[key].State == pipeline.Loaded {
			t.Error("the ledger says loaded, and no row is there")
		}
		clear(w.tokens) // the window has passed
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
		if w.ledger[key].State != pipeline.Loaded {
			t.Error("it is not loaded after the window")
		}
	})
}

// While the table is away nothing is taken from the queue; then all is loaded.
func TestOutageStopsReceiving(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		for range 20 {
			w.put(t, 5, noon, 1)
		}
		w.down = retry.As(retry.Outage, errors.New("connection refused"))
		l := w.loader(t, "a")
		stop := start(t, l)
		time.Sleep(time.Hour)
		w.mu.Lock()
		taken := 0
		for _, d := range w.queue {
			taken += d.attempt
		}
		w.mu.Unlock()
		if taken > 10 { // the workers' first, and one a probe at most by a race
			t.Errorf("%d deliveries were taken in an hour's outage", taken)
		}
		if l.Stats().Error == "" {
			t.Error("the outage does not show in the stats")
		}
		w.mu.Lock()
		w.down = nil
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
	})
}

// A server that answers but takes nothing is asked less and less often.
func TestOutageBacksOff(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(t, 5, noon, 1)
		w.fault = func(call string) (error, bool) {
			if call == "insert" {
				w.inserts++
				return retry.As(retry.Outage, errors.New("too many parts")), false
			}
			return nil, false
		}
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Hour)
		w.mu.Lock()
		if n := w.inserts; n < 20 || n > 200 { // every 5 s on average would be 720
			t.Errorf("%d inserts tried in an hour", n)
		}
		w.fault = nil
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
	})
}

func TestDamagedObjectIsNotLoaded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		damaged := w.put(t, 5, noon, 1)
		good := w.put(t, 5, noon+1000, 1)
		w.objects[damaged] = append([]byte(nil), w.objects[damaged]...)
		w.objects[damaged][20] ^= 1
		w.notify("events/dt=2026-11-22/hr=12/gone.parquet")
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Hour)
		stop()
		if n := w.count(good, 0); n != 1 {
			t.Error("the good object is not loaded: the bad one blocks it")
		}
		if n := w.count(damaged, 0); n != 0 {
			t.Error("a row of the damaged object is there")
		}
		if n := w.open(); n != 2 {
			t.Errorf("%d deliveries are open, want 2", n)
		}
	})
}

// While a load goes on for long, the queue hears of it.
func TestExtends(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(t, 5, noon, 1)
		slow := &slowTable{world: w, wait: 95 * time.Second}
		l := w.loader(t, "a")
		l.parts.Table = slow
		stop := start(t, l)
		time.Sleep(3 * time.Minute)
		stop()
		if got := w.queue[0].extended; got != 9 {
			t.Errorf("extended %d times in 95 s, want 9", got)
		}
		w.check(t)
	})
}

// A drain waits for the load under way; past the deadline it cuts it off.
func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		wait time.Duration
		cut  bool
	}{{20 * time.Second, false}, {50 * time.Second, true}} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			w.put(t, 5, noon, 1)
			l := w.loader(t, "a")
			l.parts.Table = &slowTable{world: w, wait: tt.wait}
			stop := start(t, l)
			time.Sleep(time.Second)
			if err := stop(); (err != nil) != tt.cut {
				t.Errorf("a load of %s: %v", tt.wait, err)
			}
			if tt.cut != (w.open() == 1) {
				t.Errorf("a load of %s leaves %d deliveries", tt.wait, w.open())
			}
		})
	}
}

type slowTable struct {
	*world
	wait time.Duration
}

func (s *slowTable) NewBlock(_ context.Context, _, object string, generation uint32) (Block, error) {
	return &block{w: s.world, wait: s.wait, object: object, generation: generation}, nil
}
