// Package queuetest is the conformance suite for queues of notifications, as the loader uses them.
//
// A queue delivers each notification at least once, in any order. A delivery that is neither settled nor extended comes
// again. What a queue promises beyond that is for its own tests.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Delivery is a notification to be settled by one Ack or Nak. Extend says that work on it goes on.
type Delivery interface {
	Attempt() int // from 1
	Ack(ctx context.Context) error
	Nak(delay time.Duration) error
	Extend() error
}

// Receive waits some seconds for the first of at most max deliveries; none is no error. It is for one goroutine.
type Receive[D Delivery] func(ctx context.Context, max int) ([]D, error)

// Queue is an empty queue under test.
type Queue[D Delivery] struct {
	Silence  time.Duration           // after which a delivery comes again
	Patience time.Duration           // within which something that is due has come
	Add      func(key string) error  // as a store does when it has created an object
	Key      func(D) (string, error) // of the object that a delivery is about
	Receiver func() Receive[D]       // that of another loader, each time

	// AddBody adds a message that need not be a notification. nil: the queue has no messages of others.
	AddBody func(body string) error
	Body    func(D) string
}

// Test runs the suite; open makes a queue for each of its tests. in runs a test's body: bubble.Test for a queue whose
// time can be fake; nil runs it as it is.
func Test[D Delivery](t *testing.T, in func(*testing.T, func(*testing.T)), open func(*testing.T) Queue[D]) {
	for _, c := range []struct {
		name string
		test func(*suite[D])
	}{
		{"EachOnce", (*suite[D]).eachOnce},
		{"AtMost", (*suite[D]).atMost},
		{"Nothing", (*suite[D]).nothing},
		{"Silence", (*suite[D]).silence},
		{"Extend", (*suite[D]).extend},
		{"Delay", (*suite[D]).delay},
		{"Duplicate", (*suite[D]).duplicate},
		{"Poison", (*suite[D]).poison},
		{"Shared", (*suite[D]).shared},
		{"Drain", (*suite[D]).drain},
	} {
		t.Run(c.name, func(t *testing.T) {
			test := func(t *testing.T) { c.test(&suite[D]{t, open(t)}) }
			if in != nil {
				in(t, test)
				return
			}
			t.Parallel() // each waits for real time
			test(t)
		})
	}
}

type suite[D Delivery] struct {
	t *testing.T
	Queue[D]
}

func (s *suite[D]) add(keys ...string) {
	s.t.Helper()
	for _, key := range keys {
		if err := s.Add(key); err != nil {
			s.t.Fatalf("add %s: %v", key, err)
		}
	}
}

func (s *suite[D]) key(d D) string {
	s.t.Helper()
	key, err := s.Key(d)
	if err != nil {
		s.t.Fatalf("key of a delivery: %v", err)
	}
	return key
}

func (s *suite[D]) ack(d D) {
	s.t.Helper()
	if err := d.Ack(s.t.Context()); err != nil {
		s.t.Errorf("ack: %v", err)
	}
}

// one waits for one delivery.
func (s *suite[D]) one(receive Receive[D]) D {
	s.t.Helper()
	for end := time.Now().Add(s.Patience); time.Now().Before(end); {
		all, err := receive(s.t.Context(), 1)
		if err != nil {
			s.t.Fatalf("receive: %v", err)
		}
		if len(all) == 1 {
			return all[0]
		}
	}
	s.t.Fatalf("nothing came within %s", s.Patience)
	panic("unreachable")
}

// none checks that nothing more comes.
func (s *suite[D]) none(receive Receive[D], limit time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		ctx, cancel := context.WithDeadline(s.t.Context(), end)
		all, err := receive(ctx, 10)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.t.Fatalf("receive: %v", err)
		}
		for _, d := range all {
			s.t.Errorf("unexpected delivery of %s, attempt %d", s.key(d), d.Attempt())
		}
	}
}

func (s *suite[D]) eachOnce() {
	const n = 20
	want := map[string]bool{}
	for i := range n {
		key := fmt.Sprintf("events/%d.parquet", i)
		want[key] = true
		s.add(key)
	}
	receive := s.Receiver()
	for range n {
		d := s.one(receive)
		key := s.key(d)
		if !want[key] || d.Attempt() != 1 {
			s.t.Errorf("got %s, attempt %d; want one of %v, attempt 1", key, d.Attempt(), want)
		}
		delete(want, key)
		s.ack(d)
	}
	s.none(receive, 2*s.Silence)
}

func (s *suite[D]) atMost() {
	s.add("a", "b", "c", "d", "e")
	receive := s.Receiver()
	got := map[string]bool{}
	for end := time.Now().Add(s.Patience); len(got) < 5; {
		all, err := receive(s.t.Context(), 2)
		if err != nil {
			s.t.Fatalf("receive: %v", err)
		}
		if len(all) > 2 {
			s.t.Errorf("got %d deliveries, asked for 2", len(all))
		}
		for _, d := range all {
			got[s.key(d)] = true
			s.ack(d)
		}
		if time.Now().After(end) {
			s.t.Fatalf("got %v within %s, want 5 keys", got, s.Patience)
		}
	}
}

func (s *suite[D]) nothing() {
	receive := s.Receiver()
	began := time.Now()
	if all, err := receive(s.t.Context(), 1); len(all) > 0 || err != nil {
		s.t.Errorf("an empty queue: got %d deliveries, %v", len(all), err)
	}
	if took := time.Since(began); took > 10*time.Second {
		s.t.Errorf("an empty queue: waited %s, want some seconds", took)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	cancel()
	began = time.Now()
	if all, err := receive(ctx, 1); len(all) > 0 || err != nil && !errors.Is(err, context.Canceled) {
		s.t.Errorf("with a canceled context: got %d deliveries, %v", len(all), err)
	}
	if took := time.Since(began); took > time.Second {
		s.t.Errorf("with a canceled context: waited %s", took)
	}
}

// A loader that was killed settles nothing: another gets what it had.
func (s *suite[D]) silence() {
	s.add("a")
	began := time.Now()
	s.one(s.Receiver())
	d := s.one(s.Receiver())
	if took := time.Since(began); took < s.Silence/2 {
		s.t.Errorf("another loader got it after %s, want about %s", took, s.Silence)
	}
	if key := s.key(d); key != "a" {
		s.t.Errorf("got %s, want a", key)
	}
	s.ack(d)
}

func (s *suite[D]) extend() {
	s.add("a")
	d := s.one(s.Receiver())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(s.Silence / 3):
				if err := d.Extend(); err != nil {
					s.t.Errorf("extend: %v", err)
				}
			}
		}
	})
	s.none(s.Receiver(), 3*s.Silence)
	close(stop)
	wg.Wait()
	s.ack(d)
	s.none(s.Receiver(), 2*s.Silence)
}

func (s *suite[D]) delay() {
	s.add("a")
	receive := s.Receiver()
	delay := s.Silence / 2
	if err := s.one(receive).Nak(delay); err != nil {
		s.t.Fatalf("nak: %v", err)
	}
	began := time.Now()
	d := s.one(receive)
	if took := time.Since(began); took < delay*9/10 {
		s.t.Errorf("it came again after %s, want %s at least", took, delay)
	}
	if d.Attempt() != 2 {
		s.t.Errorf("attempt %d, want 2", d.Attempt())
	}
	s.ack(d)
	s.none(receive, 2*s.Silence)
}

// A store may tell of an object twice. Settling both deliveries, or the only one, empties the queue.
func (s *suite[D]) duplicate() {
	s.add("a", "a")
	receive := s.Receiver()
	s.ack(s.one(receive))
	end := time.Now().Add(2 * s.Silence)
	for extra := 0; time.Now().Before(end); {
		ctx, cancel := context.WithDeadline(s.t.Context(), end)
		all, err := receive(ctx, 10)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.t.Fatalf("receive: %v", err)
		}
		for _, d := range all {
			s.ack(d)
		}
		if extra += len(all); extra > 1 {
			s.t.Fatalf("%d deliveries of an object that was added twice", extra+1)
		}
	}
}

// A body that nobody can read is delivered as it is, and neither blocks others nor comes again once it is settled.
func (s *suite[D]) poison() {
	if s.AddBody == nil {
		s.t.Skip("this queue has no messages of others")
	}
	bodies := map[string]bool{"": true, "{": true, "\x00\xff": true, `{"Records":[]}`: true}
	for body := range bodies {
		if err := s.AddBody(body); err != nil {
			s.t.Fatalf("add %q: %v", body, err)
		}
	}
	s.add("a")
	receive := s.Receiver()
	good := 0
	for range len(bodies) + 1 {
		d := s.one(receive)
		if body := s.Body(d); bodies[body] {
			delete(bodies, body)
		} else if key := s.key(d); key == "a" {
			good++
		}
		s.ack(d)
	}
	if len(bodies) > 0 || good != 1 {
		s.t.Errorf("%v did not come; the good one came %d times, want once", bodies, good)
	}
	s.none(receive, 2*s.Silence)
}

// Two loaders share the work, and never have an object at the same time.
func (s *suite[D]) shared() {
	const n = 30
	for i := range n {
		s.add(fmt.Sprint("k", i))
	}
	w := work[D]{queue: s.Queue, keys: n, times: map[string]int{}, held: map[string]bool{}}
	var wg sync.WaitGroup
	for range 2 {
		receive := s.Receiver()
		wg.Go(func() {
			if err := w.run(s.t.Context(), receive); err != nil {
				s.t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		if key := fmt.Sprint("k", i); w.times[key] == 0 {
			s.t.Errorf("%s never came", key)
		}
	}
}

// work is what loaders share.
type work[D Delivery] struct {
	queue Queue[D]
	keys  int // how many there are

	mu    sync.Mutex
	times map[string]int  // that each key came
	held  map[string]bool // keys that a loader has
}

func (w *work[D]) run(ctx context.Context, receive Receive[D]) error {
	for end := time.Now().Add(w.queue.Patience); time.Now().Before(end); {
		all, err := receive(ctx, 3)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for _, d := range all {
			if err := w.take(d); err != nil {
				return err
			}
		}
		time.Sleep(5 * time.Millisecond)
		for _, d := range all {
			key, _ := w.queue.Key(d)
			w.mu.Lock()
			delete(w.held, key)
			w.mu.Unlock()
			if err := d.Ack(ctx); err != nil {
				return fmt.Errorf("ack of %s: %w", key, err)
			}
		}
		w.mu.Lock()
		done := len(w.times) == w.keys
		w.mu.Unlock()
		if done {
			return nil
		}
	}
	return fmt.Errorf("%d of %d keys came within %s", len(w.times), w.keys, w.queue.Patience)
}

func (w *work[D]) take(d D) error {
	key, err := w.queue.Key(d)
	if err != nil {
		return fmt.Errorf("key of a delivery: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held[key] {
		return fmt.Errorf("%s came while another loader has it", key)
	}
	w.held[key] = true
	w.times[key]++
	return nil
}

// A loader that stops receives nothing more, and still settles what it has.
func (s *suite[D]) drain() {
	s.add("a")
	receive := s.Receiver()
	ctx, stop := context.WithCancel(s.t.Context())
	var d D
	for end := time.Now().Add(s.Patience); ; {
		all, err := receive(ctx, 1)
		if err != nil {
			s.t.Fatalf("receive: %v", err)
		}
		if len(all) == 1 {
			d = all[0]
			break
		}
		if time.Now().After(end) {
			s.t.Fatalf("nothing came within %s", s.Patience)
		}
	}
	stop()
	if all, _ := receive(ctx, 1); len(all) > 0 {
		s.t.Errorf("got %d deliveries after the stop", len(all))
	}
	if err := d.Extend(); err != nil {
		s.t.Errorf("extend after the stop: %v", err)
	}
	s.ack(d)
	s.none(s.Receiver(), 2*s.Silence)
}
