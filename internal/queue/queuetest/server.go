package queuetest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
)

// Server is a new queue server under test. Setup was never called.
type Server struct {
	Silence  time.Duration      // lease of a delivery, after which it is delivered again
	Patience time.Duration      // within which a message that is due arrives
	Connect  func() queue.Queue // each call opens another connection, as another process would
	Away     func() queue.Queue // connects to an unreachable server

	// Letters returns the dead letters that a subscriber sees.
	Letters func() ([]pipeline.DeadLetter, error) // nil: the queue does not implement queue.Letters
}

// TestServer tests what Test leaves out of queue.Queue. open starts a server for each test.
func TestServer(t *testing.T, open func(*testing.T) Server) {
	for _, c := range []struct {
		name string
		test func(*serverSuite)
	}{
		{"Setup", (*serverSuite).setup},
		{"NoSetup", (*serverSuite).noSetup},
		{"Away", (*serverSuite).away},
		{"Enqueue", (*serverSuite).enqueue},
		{"EnqueueOnce", (*serverSuite).enqueueOnce},
		{"Stats", (*serverSuite).stats},
		{"Close", (*serverSuite).closed},
		{"DryRun", (*serverSuite).dryRun},
		{"DeadLetter", letters((*serverSuite).deadLetter)},
		{"Forget", letters((*serverSuite).forget)},
		{"Rebuild", letters((*serverSuite).rebuild)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // each test waits for real time
			server := open(t)
			c.test(&serverSuite{suite{t, Queue{Silence: server.Silence, Patience: server.Patience}}, server})
		})
	}
}

// letters is for tests of queues that keep dead letters.
func letters(test func(*serverSuite)) func(*serverSuite) {
	return func(s *serverSuite) {
		_, keeps := s.connect().(queue.Letters)
		switch {
		case keeps != (s.server.Letters != nil):
			s.t.Errorf("the queue keeps dead letters: %t; the test can read them: %t", keeps, s.server.Letters != nil)
		case keeps:
			test(s)
		}
	}
}

type serverSuite struct {
	suite
	server Server
}

// connect opens a connection after setup.
func (s *serverSuite) connect() queue.Queue {
	s.t.Helper()
	q := s.server.Connect()
	s.t.Cleanup(q.Close)
	if err := q.Setup(s.t.Context(), pipeline.Specs(), nil); err != nil {
		s.t.Fatalf("setup: %v", err)
	}
	return q
}

func (s *serverSuite) add(q queue.Queue, n pipeline.Notification, again, want bool) {
	s.t.Helper()
	if known, err := q.Enqueue(s.t.Context(), pipeline.Events, n, again); err != nil || known != want {
		s.t.Errorf("enqueue %v, again %t: got known %t, %v; want %t", n, again, known, err, want)
	}
}

func (s *serverSuite) wantStats(q queue.Queue, spec pipeline.Spec, want queue.Stats) {
	s.t.Helper()
	if q.Limits().InFlightUnknown {
		want.Pending, want.InFlight = want.Pending+uint64(want.InFlight), 0
	}
	for end := time.Now().Add(s.Patience); ; time.Sleep(50 * time.Millisecond) { // counts may be a little late
		got, err := q.Stats(s.t.Context(), spec)
		if err == nil && got == want {
			return
		}
		if time.Now().After(end) {
			s.t.Errorf("stats of %s: got %+v, %v; want %+v", spec.Name, got, err, want)
			return
		}
	}
}

var object = pipeline.Notification{Key: "events/dt=2026-11-22/a b+c.parquet", ETag: "abc", Size: 1024}

func (s *serverSuite) setup() {
	q := s.connect()
	ctx, cancel := context.WithTimeout(s.t.Context(), s.Patience)
	defer cancel()
	if err := q.Ping(ctx); err != nil {
		s.t.Errorf("ping: %v", err)
	}
	s.add(q, object, false, false)
	c := s.connect().Consumer(pipeline.Events) // runs setup again
	d := s.one(c)
	if key := s.key(d); key != object.Key {
		s.t.Errorf("after the second setup: got %s, want %s", key, object.Key)
	}
	s.ack(d)
}

// A consumer needs no Setup before it: it creates what is missing.
func (s *serverSuite) noSetup() {
	q := s.server.Connect()
	s.t.Cleanup(q.Close)
	if all, err := q.Consumer(pipeline.Events).Receive(s.t.Context(), 1); err != nil || len(all) > 0 {
		s.t.Fatalf("got %d deliveries, %v; want none", len(all), err)
	}
	s.add(q, object, false, false)
	s.ack(s.one(q.Consumer(pipeline.Events)))
	if letters, ok := q.(queue.Letters); ok {
		if err := letters.Forget(s.t.Context(), "events", "events/a"); err != nil {
			s.t.Errorf("forget: %v", err)
		}
	}
}

// A dry run only reports changes. Then Setup reports what it did; a repeated Setup has nothing to do.
func (s *serverSuite) dryRun() {
	q := s.server.Connect()
	s.t.Cleanup(q.Close)
	run := func(dry bool) (steps []provision.Step) {
		plan := &provision.Plan{DryRun: dry, Print: func(step provision.Step) { steps = append(steps, step) }}
		if err := q.Setup(s.t.Context(), pipeline.Specs(), plan); err != nil || plan.Err() != nil {
			s.t.Errorf("setup, dry run %t: %v, %v", dry, err, plan.Err())
		}
		return steps
	}
	for range 2 {
		if steps := run(true); !slices.ContainsFunc(steps, func(s provision.Step) bool { return s.Mark == provision.Would }) {
			s.t.Errorf("a dry run of a new server reports %v, want what would be changed", steps)
		}
	}
	if steps := run(false); len(steps) == 0 {
		s.t.Error("setup reports nothing")
	}
	run(false)
}

// An unreachable server is an outage, reported within the context's deadline.
func (s *serverSuite) away() {
	began := time.Now()
	q := s.server.Away()
	s.t.Cleanup(q.Close)
	if took := time.Since(began); took > time.Second {
		s.t.Errorf("connecting took %s: it must not wait for the server", took)
	}
	calls := map[string]func(context.Context) error{
		"Setup":   func(ctx context.Context) error { return q.Setup(ctx, pipeline.Specs(), nil) },
		"Ping":    q.Ping,
		"Enqueue": func(ctx context.Context) error { return second(q.Enqueue(ctx, pipeline.Events, object, false)) },
		"Stats":   func(ctx context.Context) error { return second(q.Stats(ctx, pipeline.Events)) },
	}
	if letters, ok := q.(queue.Letters); ok {
		calls["DeadLetter"] = func(ctx context.Context) error {
			return letters.DeadLetter(ctx, pipeline.DeadLetter{Key: "a"})
		}
		calls["Forget"] = func(ctx context.Context) error { return letters.Forget(ctx, "events", "a") }
		calls["Rebuild"] = func(ctx context.Context) error { return second(letters.Rebuild(ctx, nil)) }
	}
	for name, call := range calls {
		ctx, cancel := context.WithTimeout(s.t.Context(), 300*time.Millisecond)
		began := time.Now()
		err := call(ctx)
		cancel()
		if err == nil || retry.ClassOf(err) != retry.Outage {
			s.t.Errorf("%s: got %v, want an outage", name, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			s.t.Errorf("%s took %s, its context 300ms", name, took)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A notification arrives as it was enqueued, and only in its own pipeline.
func (s *serverSuite) enqueue() {
	s.add(s.connect(), object, false, false)
	q := s.connect()
	d := s.one(q.Consumer(pipeline.Events))
	got, err := d.Notifications()
	if want := []pipeline.Notification{object}; err != nil || !slices.Equal(got, want) {
		s.t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if d.Attempt() != 1 {
		s.t.Errorf("attempt %d, want 1", d.Attempt())
	}
	s.ack(d)
	s.none(q.Consumer(pipeline.Errors), s.Silence)
}

// An object is enqueued once within the hour, also after it was received, whichever connection enqueues it.
func (s *serverSuite) enqueueOnce() {
	full := time.Now().Truncate(time.Hour).Add(time.Hour)
	if left := time.Until(full); left < s.Patience { // a queue may count by the hours of the clock
		time.Sleep(left)
	}
	a, b := s.connect(), s.connect()
	if a.Limits().OwnMemory { // only this connection remembers
		b = a
	}
	c := a.Consumer(pipeline.Events)
	s.add(a, object, false, false)
	s.add(a, object, false, true)
	s.add(b, object, false, true)
	s.ack(s.one(c))
	s.add(b, object, false, true)
	s.none(c, s.Silence)

	other := object
	other.ETag = "def"
	s.add(b, other, false, false)
	s.ack(s.one(c))
	for range 2 {
		s.add(b, object, true, false)
		d := s.one(c)
		if key := s.key(d); key != object.Key {
			s.t.Errorf("enqueued again: got %s, want %s", key, object.Key)
		}
		s.ack(d)
	}
	s.none(c, s.Silence)
}

func (s *serverSuite) stats() {
	q, other := s.connect(), s.connect()
	s.wantStats(q, pipeline.Events, queue.Stats{})
	for _, key := range []string{"events/a", "events/b", "events/c"} {
		s.add(q, pipeline.Notification{Key: key}, false, false)
	}
	s.wantStats(other, pipeline.Events, queue.Stats{Pending: 3})
	s.wantStats(other, pipeline.Errors, queue.Stats{})
	c := q.Consumer(pipeline.Events)
	first := s.one(c)
	s.wantStats(other, pipeline.Events, queue.Stats{Pending: 2, InFlight: 1})
	s.ack(first)
	s.wantStats(other, pipeline.Events, queue.Stats{Pending: 2})
	for range 2 {
		s.ack(s.one(c))
	}
	s.wantStats(other, pipeline.Events, queue.Stats{})
}

// A closed connection's deliveries go to another one.
func (s *serverSuite) closed() {
	q := s.connect()
	s.add(q, object, false, false)
	s.one(q.Consumer(pipeline.Events))
	q.Close()
	d := s.one(s.connect().Consumer(pipeline.Events))
	if key := s.key(d); key != object.Key {
		s.t.Errorf("got %s, want %s", key, object.Key)
	}
	s.ack(d)
}

func letter(name, key string, failures uint32) pipeline.DeadLetter {
	at := time.Date(2026, 11, 22, 3, 45, 12, 0, time.UTC)
	return pipeline.DeadLetter{Key: key, ETag: "abc", Pipeline: name, Code: "bad_object", Reason: "it is damaged",
		Attempts: failures, Failures: failures, First: at, Last: at, Token: "t"}
}

func (s *serverSuite) publish(q queue.Queue, letters ...pipeline.DeadLetter) {
	s.t.Helper()
	for _, d := range letters {
		if err := q.(queue.Letters).DeadLetter(s.t.Context(), d); err != nil {
			s.t.Fatalf("publish %s: %v", d.Key, err)
		}
	}
}

func (s *serverSuite) wantLetters(want ...pipeline.DeadLetter) {
	s.t.Helper()
	got, err := s.server.Letters()
	if err != nil {
		s.t.Fatalf("read dead letters: %v", err)
	}
	slices.SortFunc(got, func(a, b pipeline.DeadLetter) int { return strings.Compare(a.Key, b.Key) })
	if !slices.Equal(got, want) {
		s.t.Errorf("got dead letters\n%+v\nwant\n%+v", got, want)
	}
}

// A dead letter is stored once. A later one of the same object replaces it.
func (s *serverSuite) deadLetter() {
	q := s.connect()
	a, b := letter("events", "events/a b*>.parquet", 5), letter("errors", "errors/a", 3)
	s.publish(q, a, b, a)
	s.wantLetters(b, a)
	a.Attempts, a.Failures = 6, 6
	s.publish(s.connect(), a)
	s.wantLetters(b, a)
}

func (s *serverSuite) forget() {
	q := s.connect()
	a, b := letter("events", "events/a", 5), letter("events", "events/b", 5)
	s.publish(q, a, b)
	for _, key := range []string{a.Key, a.Key, "events/unknown"} { // a missing letter is no error
		if err := q.(queue.Letters).Forget(s.t.Context(), "events", key); err != nil {
			s.t.Errorf("forget %s: %v", key, err)
		}
	}
	s.wantLetters(b)
}

func (s *serverSuite) rebuild() {
	q := s.connect()
	a, b, c := letter("events", "events/a", 5), letter("events", "events/b", 5), letter("events", "events/c", 5)
	s.publish(q, a, b)
	for _, want := range []uint64{2, 2} { // the second run replaces the same letters
		before, err := q.(queue.Letters).Rebuild(s.t.Context(), []pipeline.DeadLetter{b, c})
		if err != nil || before != want {
			s.t.Errorf("rebuild: got %d before, %v; want %d", before, err, want)
		}
		s.wantLetters(b, c)
	}
}

// TestPurged tests that a queue with Limits.OwnMemory enqueues an object again when its message is gone. The queue's
// memory must trust the server's counts at once.
func TestPurged(t *testing.T, server Server, q queue.Queue, purge func() error) {
	s := &serverSuite{suite{t, Queue{Silence: server.Silence, Patience: server.Patience}}, server}
	if err := q.Setup(t.Context(), pipeline.Specs(), nil); err != nil {
		t.Fatal(err)
	}
	s.add(q, object, false, false)
	s.wantStats(q, pipeline.Events, queue.Stats{Pending: 1})
	s.add(q, object, false, true)
	if err := purge(); err != nil {
		t.Fatalf("purge: %v", err)
	}
	s.wantStats(q, pipeline.Events, queue.Stats{})
	s.add(q, object, false, false)
	d := s.one(q.Consumer(pipeline.Events))
	if key := s.key(d); key != object.Key {
		t.Errorf("after the purge: got %s, want %s", key, object.Key)
	}
	s.add(q, object, false, true) // it is being loaded
	s.ack(d)
}
