package loader

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
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// world is a bucket, a queue, a table and a ledger in memory. If fault is set, it is called before each call. If it
// returns an error, the call fails. late means that the call took effect anyway and its answer was lost.
type world struct {
	dir      string // temporary folder of its loaders
	mu       sync.Mutex
	objects  map[string][]byte
	metas    map[string]pipeline.Meta
	queue    []*delivery
	rows     map[rowKey]int  // number of copies
	bad      map[string]bool // names of events that the table rejects because of their properties
	code     retry.Class     // of that rejection; 0: permanent
	broken   bool            // the table rejects every event
	view     bool            // a view behind the table throws
	letters  []pipeline.DeadLetter
	kept     []pipeline.Failure // reported, on disk or not
	tokens   map[string]bool
	window   int // tokens remembered; 0: all
	order    []string
	ledger   map[string]pipeline.Load
	inserts  int
	asked    int              // queries for rows of an object
	found    []pipeline.Event // in blocks that another attempt had inserted
	fault    func(call string) (err error, late bool)
	received func(key string, b []byte) []byte // changes bytes on their way; nil: none
	down     error
	etag     string               // of all objects; empty: "e"
	expired  pipeline.Expiry      // rows that are deleted at once
	resent   int                  // looked-up events that are rows of other objects
	metrics  *prometheus.Registry // the last loader's
	times    func(i int) int64    // time of an object's i-th event; nil: the object's
}

const week = int64(7 * 24 * 3600 * 1000) // ms

// late is a client with a queue: some of its events are from earlier weeks, and some have no time.
func late(i int) int64 {
	switch {
	case i%5 == 3:
		return noon - int64(i%3+1)*week
	case i%11 == 7:
		return pipeline.NoTime
	}
	return noon
}

// rowKey is a row in its partition.
type rowKey struct {
	object     string
	row        uint32
	generation uint32
	partition  int64
}

// count returns the number of copies of a row, of any generation.
func (w *world) count(object string, row int) (n int) {
	for k, times := range w.rows {
		if k.object == object && k.row == uint32(row) {
			n += times
		}
	}
	return n
}

func newWorld() *world {
	return &world{objects: map[string][]byte{}, metas: map[string]pipeline.Meta{}, rows: map[rowKey]int{},
		tokens: map[string]bool{}, ledger: map[string]pipeline.Load{}}
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

	etag       string
	unreadable error // if there is no key: the error of Notifications
	settled    bool
	extended   int
}

func (d *delivery) Notifications() ([]pipeline.Notification, error) {
	if d.key == "" {
		return nil, d.unreadable
	}
	return []pipeline.Notification{{Key: d.key, ETag: d.etag}}, nil
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
		d.inFlight, d.due = false, time.Now().Add(time.Minute) // it times out and is delivered again
	}
	return err
}

func (d *delivery) Nak(delay time.Duration) error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	d.inFlight, d.due = false, time.Now().Add(delay)
	return nil
}

func (w *world) Receive(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	for range 50 {
		w.mu.Lock()
		if err, _ := w.try("receive"); err != nil {
			w.mu.Unlock()
			return nil, err
		}
		var all []pipeline.Delivery
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
	object := pipeline.Object{Key: key, ETag: etag, Size: int64(len(b)), Meta: w.metas[key]}
	if w.received != nil {
		b = w.received(key, bytes.Clone(b))
	}
	return object, io.NopCloser(bytes.NewReader(b)), nil
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

func (b *block) Append(events []pipeline.Event, _ []*pipeline.Typed, pick []uint32) {
	for _, i := range pick {
		e := events[i]
		e.Name, e.Properties = bytes.Clone(e.Name), bytes.Clone(e.Properties)
		b.events = append(b.events, e)
	}
}

func (b *block) Found() {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	b.w.found = append(b.w.found, b.events...)
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
		if partitionOf(&events[i]) != partitionOf(&events[0]) {
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
			if e := &events[i]; !w.expired.Covers(e.ReceivedAt, e.Time()) {
				w.rows[rowKey{object, e.Row, generation, partitionOf(e)}]++
			}
		}
	}
	if err == nil && w.view {
		return retry.AsCode(retry.Permanent, 70, errors.New("while pushing to view v"))
	}
	return err
}

func partitionOf(e *pipeline.Event) int64 { return pipeline.Partition(e.IdentityTime()) }

func (w *world) Present(_ context.Context, _ string, r pipeline.Rows) (map[int64]bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err, _ := w.try("present"); err != nil {
		return nil, err
	}
	w.asked++
	there := map[int64]bool{}
	for k, n := range w.rows {
		if k.object == r.Object && k.generation == r.Generation && n > 0 && int64(k.row) >= r.First && int64(k.row) < r.End &&
			(r.Partitions == nil || slices.Contains(r.Partitions, k.partition)) {
			there[k.partition] = true
		}
	}
	return there, nil
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

func (w *world) Expired(context.Context, string) (pipeline.Expiry, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err, _ := w.try("expired")
	return w.expired, err
}

func (w *world) Known(_ context.Context, _ string, events []pipeline.Identity) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err, _ := w.try("known")
	return uint64(min(w.resent, len(events))), err
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
	key := pipeline.Key{Prefix: "events/", Time: pipeline.Millis(startMs), Receiver: "r", Seq: uint64(len(w.objects) + 1),
		Format: pipeline.NDJSON}.String()
	events := make([]pipeline.Event, n)
	for i := range events {
		at := startMs
		if w.times != nil {
			at = w.times(i)
		}
		events[i] = pipeline.Event{ID: pipeline.UUIDv5(nil, fmt.Append(nil, startMs, i)), Project: []byte("p"), Name: []byte(name(i)),
			Timestamp:  at,
			ReceivedAt: startMs + int64(i)*stepMs, Seq: uint64(i), Properties: []byte(`{"a":1}`), Context: []byte(`{}`)}
	}
	var b bytes.Buffer
	enc, err := codec.NewEncoders().New(&b, pipeline.NDJSON, "r")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(enc.Encode(events), enc.Close()); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	w.objects[key] = b.Bytes()
	w.metas[key] = pipeline.Meta{Schema: 1, Rows: int64(n), SHA256: hex.EncodeToString(sum[:]),
		FirstReceived: startMs, LastReceived: startMs + int64(n-1)*stepMs}
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

// check compares the rows with the objects: each once, and no other.
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
	w.metrics = prometheus.NewRegistry()
	if w.dir == "" {
		w.dir = t.TempDir()
	}
	return New(pipeline.Events, Options{Name: name, Workers: 3, ChunkRows: 10, ChunkBytes: 1 << 20, Attempts: 1000,
		Unfinished: 5, Isolation: NewIsolation(nil), Extend: 10 * time.Second,
		Backoff: retry.Backoff{Min: time.Second, Max: time.Minute},
		Probe:   retry.Backoff{Min: time.Second, Max: 10 * time.Second}, Drain: 30 * time.Second},
		Parts{Queue: w, Source: Source{Store: w, Dir: w.dir}, Table: w, Ledger: w, Letters: w, Report: w},
		slog.New(slog.DiscardHandler), w.metrics)
}

// start runs a loader until the returned function is called.
func start(t *testing.T, l *Loader) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return func() error { cancel(); return <-done }
}

const noon = int64(1795348800000) // 2026-11-22T12:00:00Z

// killAt kills a loader at its call number point, which takes effect if late is set, and lets another one continue.
func (w *world) killAt(t *testing.T, point int, late bool) {
	calls := 0
	w.fault = func(string) (error, bool) {
		calls++
		if calls < point {
			return nil, false
		}
		return retry.As(retry.Outage, errors.New("killed")), late && calls == point // from now on every call fails
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

type slowTable struct {
	*world
	wait time.Duration
}

func (s *slowTable) NewBlock(_ context.Context, _, object string, generation uint32) (Block, error) {
	return &block{w: s.world, wait: s.wait, object: object, generation: generation}, nil
}

// putFile stores a foreign file and queues its notification.
func (w *world) putFile(key, text string) string {
	w.objects[key] = []byte(text)
	w.notify(key)
	return key
}

// runUntilSettled runs a loader until the queue is empty.
func runUntilSettled(t *testing.T, l *Loader, w *world) {
	t.Helper()
	stop := start(t, l)
	for end := time.Now().Add(time.Hour); w.open() > 0; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("%d deliveries are not settled", w.open())
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// server decodes files into a number of lines; version is its Version.
type server struct {
	lines   int
	version string
	err     error
	asked   int
	during  func()
}

func (s *server) Version(context.Context) (string, error) { return s.version, nil }

func (s *server) Lines(_ context.Context, _, _ string, each func([]byte) error) error {
	s.asked++
	if s.during != nil {
		s.during()
	}
	for i := range s.lines {
		if err := each(fmt.Appendf(nil, `{"name":"n","i":%d}`, i)); err != nil {
			return err
		}
	}
	return s.err
}

func (w *world) entry(key string) pipeline.Load {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ledger[key]
}

func (w *world) refusedCheck(t *testing.T, key string, n int, rows []int) {
	t.Helper()
	for i := range n {
		want := 1
		if slices.Contains(rows, i) {
			want = 0
		}
		if got := w.count(key, i); got != want {
			t.Errorf("row %d is there %d times, want %d", i, got, want)
		}
	}
	e := w.entry(key)
	if e.State != pipeline.Loaded || int(e.Rows) != n-len(rows) || len(e.Refused) != len(rows) {
		t.Errorf("ledger: %s, %d rows, refused %v, want loaded, %d, %v", e.State, e.Rows, e.Refused, n-len(rows), rows)
	}
}

const unknownClass = retry.Class(9) // for Unknown, because 0 means permanent here

// deadly decodes columnar files. While it is armed, decoding one ends the process: nothing that the loader does
// afterwards has an effect.
type deadly struct {
	w     *world
	armed bool
	kills int
}

func (d *deadly) Version(context.Context) (string, error) { return "1", nil }

func (d *deadly) Lines(_ context.Context, _, _ string, each func([]byte) error) error {
	d.w.mu.Lock()
	armed := d.armed
	if armed {
		d.kills++
		d.w.down = retry.As(retry.Outage, errors.New("killed"))
	}
	d.w.mu.Unlock()
	if armed {
		return d.w.down
	}
	return each([]byte(`{"name":"a"}`))
}

// suspicious returns a world with one file that d decodes.
func suspicious() (w *world, d *deadly, n pipeline.Notification) {
	w = newWorld()
	d = &deadly{w: w, armed: true}
	return w, d, pipeline.Notification{Key: w.putFile("events/x.orc", "ORC\x00...")}
}

// killLoaders lets the object kill n loaders, one after the other.
func killLoaders(t *testing.T, w *world, d *deadly, n pipeline.Notification, times int, run *Isolation) {
	t.Helper()
	for i := range times {
		l := w.loader(t, fmt.Sprint("victim", i))
		l.parts.Source.Files, l.opts.Isolation = d, run
		before := d.kills
		if _, err := l.load(t.Context(), n); err == nil || d.kills != before+1 {
			t.Fatalf("attempt %d: error %v after %d kills", i+1, err, d.kills-before)
		}
		w.mu.Lock()
		w.down = nil
		w.mu.Unlock()
	}
}

// counted returns a counter of the last loader, or the sum of a histogram, by its name without prefix, and by its label
// if it has one.
func (w *world) counted(t *testing.T, name, label string) (n float64) {
	t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := ""
			for _, l := range m.GetLabel() {
				if l.GetName() != "pipeline" {
					labels += l.GetValue()
				}
			}
			if f.GetName() == "penstock_loader_"+name && labels == label {
				n += m.GetCounter().GetValue() + m.GetHistogram().GetSampleSum()
			}
		}
	}
	return n
}

// failing makes each call of that name fail.
func failing(name string, class retry.Class) func(call string) error {
	return func(call string) error {
		if call != name {
			return nil
		}
		return retry.As(class, errors.New(name+" fails"))
	}
}

// shelf is a bucket with a ledger and claims, in fake time.
type shelf struct {
	mu      sync.Mutex
	objects map[string]time.Time
	loaded  map[string]bool
	claims  map[string]time.Time // expiry
	failing error                // returned by List
}

func newShelf() *shelf {
	return &shelf{objects: map[string]time.Time{}, loaded: map[string]bool{}, claims: map[string]time.Time{}}
}

func (s *shelf) List(_ context.Context, prefix, after, before string, page func([]pipeline.Object) error) error {
	s.mu.Lock()
	var all []pipeline.Object
	for _, key := range slices.Sorted(maps.Keys(s.objects)) {
		if strings.HasPrefix(key, prefix) && key > after && (before == "" || key < before) {
			all = append(all, pipeline.Object{Key: key, ETag: "e", Size: 1, Modified: s.objects[key]})
		}
	}
	err := s.failing
	s.mu.Unlock()
	if err != nil || len(all) == 0 {
		return err
	}
	return page(all)
}

func (s *shelf) Loads(_ context.Context, first, last string, each func(pipeline.Load) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.loaded)) {
		if key >= first && key <= last {
			if err := each(pipeline.Load{Key: key, State: pipeline.Loaded}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shelf) Claim(_ context.Context, name, _ string, ttl time.Duration) (Claim, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, held := s.claims[name]; held && time.Now().Before(until) {
		return nil, false, nil
	}
	c := &held{shelf: s, name: name, ttl: ttl, until: time.Now().Add(ttl)}
	s.claims[name] = c.until
	return c, true, nil
}

// held is a claim. It is lost if another process has it now.
type held struct {
	shelf *shelf
	name  string
	ttl   time.Duration
	until time.Time
}

func (h *held) Renew(context.Context) (bool, error) {
	h.shelf.mu.Lock()
	defer h.shelf.mu.Unlock()
	if !h.shelf.claims[h.name].Equal(h.until) {
		return false, nil
	}
	h.until = time.Now().Add(h.ttl)
	h.shelf.claims[h.name] = h.until
	return true, nil
}

func (h *held) Release(context.Context) error {
	h.shelf.mu.Lock()
	defer h.shelf.mu.Unlock()
	if h.shelf.claims[h.name].Equal(h.until) {
		delete(h.shelf.claims, h.name)
	}
	return nil
}

func (s *shelf) poller(owner string, ttl time.Duration) *Poller {
	return &Poller{Spec: pipeline.Events, Owner: owner, Poll: ttl / 2, Every: 10 * ttl, Span: 24 * time.Hour, TTL: ttl,
		Bucket: s, Ledger: s, Claims: s, More: make(chan pipeline.Notification, 100)}
}
