// Package queuetest is the conformance suite of queues.
//
// Test covers what a loader needs: each notification is delivered at least once, in any order, and a delivery that is
// neither settled nor extended is delivered again. TestServer covers the rest of queue.Queue.
package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
)

// Queue is an empty queue of the pipeline "events" under test.
type Queue struct {
	Silence  time.Duration          // lease of a delivery, after which it is delivered again
	Patience time.Duration          // within which a message that is due arrives
	Add      func(key string) error // as a store does after it created an object
	Consumer func() queue.Consumer  // each call is another loader's

	// AddBody adds a message with any body, or returns ErrBody. nil: no others can write to the queue.
	AddBody func(body string) error

	Limits queue.Limits // declared by the adapter
}

// ErrBody is returned for a body that the server accepts from nobody.
var ErrBody = errors.New("the server accepts no such body")

// Test runs the suite. open creates a queue for each test. in runs a test's body: bubble.Test if the queue can use fake
// time; nil: directly.
func Test(t *testing.T, in func(*testing.T, func(*testing.T)), open func(*testing.T) Queue) {
	for _, c := range []struct {
		name string
		test func(*suite)
	}{
		{"EachOnce", (*suite).eachOnce},
		{"AtMost", (*suite).atMost},
		{"Nothing", (*suite).nothing},
		{"Silence", (*suite).silence},
		{"Extend", (*suite).extend},
		{"Late", (*suite).late},
		{"Delay", (*suite).delay},
		{"GivenUpByUs", (*suite).givenUpByUs},
		{"Duplicate", (*suite).duplicate},
		{"Poison", (*suite).poison},
		{"Bodies", (*suite).bodies},
		{"Shared", (*suite).shared},
		{"Drain", (*suite).drain},
	} {
		t.Run(c.name, func(t *testing.T) {
			test := func(t *testing.T) { c.test(&suite{t, open(t)}) }
			if in != nil {
				in(t, test)
				return
			}
			t.Parallel() // each test waits for real time
			test(t)
		})
	}
}

type suite struct {
	t *testing.T
	Queue
}

func (s *suite) add(keys ...string) {
	s.t.Helper()
	for _, key := range keys {
		if err := s.Add(key); err != nil {
			s.t.Fatalf("add %s: %v", key, err)
		}
	}
}

// keyOf returns the key of a delivery's object.
func keyOf(d pipeline.Delivery) (string, error) {
	all, err := d.Notifications()
	if err != nil {
		return "", err
	}
	if len(all) != 1 {
		return "", fmt.Errorf("got %d notifications in a delivery, want 1", len(all))
	}
	return all[0].Key, nil
}

func (s *suite) key(d pipeline.Delivery) string {
	s.t.Helper()
	key, err := keyOf(d)
	if err != nil {
		s.t.Fatalf("key of a delivery: %v", err)
	}
	return key
}

func (s *suite) ack(d pipeline.Delivery) {
	s.t.Helper()
	if err := d.Ack(s.t.Context()); err != nil {
		s.t.Errorf("ack: %v", err)
	}
}

// one waits for one delivery.
func (s *suite) one(c queue.Consumer) pipeline.Delivery {
	s.t.Helper()
	for end := time.Now().Add(s.Patience); time.Now().Before(end); {
		all, err := c.Receive(s.t.Context(), 1)
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
func (s *suite) none(c queue.Consumer, limit time.Duration) {
	s.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		ctx, cancel := context.WithDeadline(s.t.Context(), end)
		all, err := c.Receive(ctx, 10)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			s.t.Fatalf("receive: %v", err)
		}
		for _, d := range all {
			s.t.Errorf("unexpected delivery of %s, attempt %d", s.key(d), d.Attempt())
		}
	}
}

func (s *suite) eachOnce() {
	const n = 20
	want := map[string]bool{}
	for i := range n {
		key := fmt.Sprintf("events/%d.parquet", i)
		want[key] = true
		s.add(key)
	}
	c := s.Consumer()
	for range n {
		d := s.one(c)
		key := s.key(d)
		if !want[key] || d.Attempt() != 1 {
			s.t.Errorf("got %s, attempt %d; want one of %v, attempt 1", key, d.Attempt(), want)
		}
		delete(want, key)
		s.ack(d)
	}
	s.none(c, 2*s.Silence)
}

func (s *suite) atMost() {
	s.add("events/a", "events/b", "events/c", "events/d", "events/e")
	c := s.Consumer()
	got := map[string]bool{}
	for end := time.Now().Add(s.Patience); len(got) < 5; {
		all, err := c.Receive(s.t.Context(), 2)
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

func (s *suite) nothing() {
	c := s.Consumer()
	began := time.Now()
	if all, err := c.Receive(s.t.Context(), 1); len(all) > 0 || err != nil {
		s.t.Errorf("an empty queue: got %d deliveries, %v", len(all), err)
	}
	if took := time.Since(began); took > 10*time.Second {
		s.t.Errorf("an empty queue: waited %s, want some seconds", took)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	cancel()
	began = time.Now()
	if all, err := c.Receive(ctx, 1); len(all) > 0 || err != nil && !errors.Is(err, context.Canceled) {
		s.t.Errorf("with a canceled context: got %d deliveries, %v", len(all), err)
	}
	if took := time.Since(began); took > time.Second {
		s.t.Errorf("with a canceled context: waited %s", took)
	}
}

// A killed loader settles nothing: another loader gets its deliveries.
func (s *suite) silence() {
	s.add("events/a")
	began := time.Now()
	s.one(s.Consumer())
	d := s.one(s.Consumer())
	if took := time.Since(began); took < s.Silence/2 {
		s.t.Errorf("another loader got it after %s, want about %s", took, s.Silence)
	}
	if key := s.key(d); key != "events/a" {
		s.t.Errorf("got %s, want events/a", key)
	}
	s.ack(d)
}

// Extending keeps a delivery beyond its lease, if the queue has leases that can be extended.
func (s *suite) extend() {
	if s.Limits.FixedLease {
		s.fixedLease()
		return
	}
	s.add("events/a")
	d := s.one(s.Consumer())
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
	s.none(s.Consumer(), 3*s.Silence)
	close(stop)
	wg.Wait()
	s.ack(d)
	s.none(s.Consumer(), 2*s.Silence)
}

// A delivery that cannot be extended goes to another loader after its lease. Both may settle it, in any order.
func (s *suite) fixedLease() {
	s.add("events/a")
	first := s.one(s.Consumer())
	if err := first.Extend(); err != nil {
		s.t.Errorf("extend: got %v, want no error and no effect", err)
	}
	second := s.one(s.Consumer())
	if key := s.key(second); key != "events/a" {
		s.t.Errorf("got %s, want events/a", key)
	}
	s.ack(second)
	first.Ack(s.t.Context()) // its lease is over, so an error is fine
	s.none(s.Consumer(), 2*s.Silence)
}

// If a loader settles a delivery too late, after another one got it, the other can still settle it.
func (s *suite) late() {
	s.add("events/a")
	first := s.one(s.Consumer())
	second := s.one(s.Consumer())
	first.Ack(s.t.Context()) // an error is fine
	s.ack(second)
	s.none(s.Consumer(), 2*s.Silence)
}

// manyAttempts is more than loader.max_attempts.
const manyAttempts = 15

// Only the loader gives an object up: a message that failed often is still delivered. A server that deletes it anyway
// declares after how many deliveries; until then it is delivered like any other.
func (s *suite) givenUpByUs() {
	s.add("events/a")
	c := s.Consumer()
	attempts := manyAttempts
	if most := s.Limits.MaxDeliveries; most > 0 {
		attempts = min(attempts, most)
	}
	for i := 1; i < attempts; i++ {
		d := s.one(c)
		if d.Attempt() != i {
			s.t.Errorf("attempt %d, want %d", d.Attempt(), i)
		}
		if err := d.Nak(0); err != nil {
			s.t.Fatalf("nak %d: %v", i, err)
		}
	}
	s.ack(s.one(c)) // now the dead letter is safe
	s.none(c, 2*s.Silence)
}

func (s *suite) delay() {
	s.add("events/a")
	c := s.Consumer()
	delay := s.Silence / 2
	if err := s.one(c).Nak(delay); err != nil {
		s.t.Fatalf("nak: %v", err)
	}
	began := time.Now()
	d := s.one(c)
	if took := time.Since(began); took < delay*9/10 {
		s.t.Errorf("it came again after %s, want %s at least", took, delay)
	}
	if d.Attempt() != 2 {
		s.t.Errorf("attempt %d, want 2", d.Attempt())
	}
	s.ack(d)
	s.none(c, 2*s.Silence)
}

// A store may send two notifications of one object. Settling both, or the only one, empties the queue.
func (s *suite) duplicate() {
	s.add("events/a", "events/a")
	c := s.Consumer()
	s.ack(s.one(c))
	end := time.Now().Add(2 * s.Silence)
	for extra := 0; time.Now().Before(end); {
		ctx, cancel := context.WithDeadline(s.t.Context(), end)
		all, err := c.Receive(ctx, 10)
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

// An unreadable body is delivered. It blocks no other message, and does not return once it is settled.
func (s *suite) poison() {
	if s.AddBody == nil {
		s.t.Skip("this queue has no messages of others")
	}
	bodies := 0
	for _, body := range []string{"", "{", "\x00\xff", `{"Records":[]}`, "<xml/>"} {
		switch err := s.AddBody(body); {
		case errors.Is(err, ErrBody):
		case err != nil:
			s.t.Fatalf("add %q: %v", body, err)
		default:
			bodies++
		}
	}
	s.add("events/a")
	c := s.Consumer()
	good := 0
	for range bodies + 1 {
		d := s.one(c)
		if key, err := keyOf(d); err == nil && key == "events/a" {
			good++
		}
		s.ack(d)
	}
	if good != 1 {
		s.t.Errorf("the readable message was delivered %d times, want once", good)
	}
	s.none(c, 2*s.Silence)
}

// A store's message may name several objects, or none if it is a test message.
func (s *suite) bodies() {
	if s.AddBody == nil {
		s.t.Skip("this queue has no messages of others")
	}
	c := s.Consumer()
	for _, tt := range []struct {
		body string
		want []pipeline.Notification
	}{
		{`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}`, nil},
		{`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"events/a+b%2Bc","size":5,"eTag":"abc"}}},
			{"eventName":"ObjectCreated:Put","s3":{"object":{"key":"events/d","size":6,"eTag":"def"}}}]}`,
			[]pipeline.Notification{{Key: "events/a b+c", ETag: "abc", Size: 5}, {Key: "events/d", ETag: "def", Size: 6}}},
		{`{"Type":"Notification","Message":"{\"Records\":[{\"eventName\":\"ObjectCreated:CompleteMultipartUpload\",` +
			`\"s3\":{\"object\":{\"key\":\"events%2Fdt%3D2026-11-22/a+b\",\"size\":7,\"eTag\":\"abc-2\"}}}]}"}`,
			[]pipeline.Notification{{Key: "events/dt=2026-11-22/a b", ETag: "abc-2", Size: 7}}},
		{`{"detail-type":"Object Created","detail":{"object":{"key":"events/a b%2B","size":8,"etag":"e"}}}`,
			[]pipeline.Notification{{Key: "events/a b%2B", ETag: "e", Size: 8}}},
		{`{"account":"a","action":"PutObject","bucket":"b","object":{"key":"events/a b+%2B","size":9,"eTag":"e"}}`,
			[]pipeline.Notification{{Key: "events/a b+%2B", ETag: "e", Size: 9}}},
	} {
		if err := s.AddBody(tt.body); err != nil {
			s.t.Fatalf("add %s: %v", tt.body, err)
		}
		d := s.one(c)
		if got, err := d.Notifications(); err != nil || !slices.Equal(got, tt.want) {
			s.t.Errorf("%s: got %v, %v; want %v", tt.body, got, err, tt.want)
		}
		s.ack(d)
	}
}

// Two loaders share the work. They never have an object at the same time.
func (s *suite) shared() {
	const n = 30
	for i := range n {
		s.add(fmt.Sprint("events/k", i))
	}
	w := work{queue: s.Queue, keys: n, times: map[string]int{}, held: map[string]bool{}}
	var wg sync.WaitGroup
	for range 2 {
		c := s.Consumer()
		wg.Go(func() {
			if err := w.run(s.t.Context(), c); err != nil {
				s.t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		if key := fmt.Sprint("events/k", i); w.times[key] == 0 {
			s.t.Errorf("%s never came", key)
		}
	}
}

// work is what loaders share.
type work struct {
	queue Queue
	keys  int // number of keys

	mu    sync.Mutex
	times map[string]int  // deliveries of each key
	held  map[string]bool // keys that a loader is working on
}

func (w *work) run(ctx context.Context, c queue.Consumer) error {
	for end := time.Now().Add(w.queue.Patience); time.Now().Before(end); {
		all, err := c.Receive(ctx, 3)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for _, d := range all {
			if err := w.take(d); err != nil {
				return err
			}
		}
		time.Sleep(5 * time.Millisecond) // so that deliveries overlap
		for _, d := range all {
			key, _ := keyOf(d)
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

func (w *work) take(d pipeline.Delivery) error {
	key, err := keyOf(d)
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

// A loader that stops receives nothing more, and can still settle its deliveries.
func (s *suite) drain() {
	s.add("events/a")
	c := s.Consumer()
	ctx, stop := context.WithCancel(s.t.Context())
	var d pipeline.Delivery
	for end := time.Now().Add(s.Patience); ; {
		all, err := c.Receive(ctx, 1)
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
	if all, _ := c.Receive(ctx, 1); len(all) > 0 {
		s.t.Errorf("got %d deliveries after the stop", len(all))
	}
	if err := d.Extend(); err != nil {
		s.t.Errorf("extend after the stop: %v", err)
	}
	s.ack(d)
	s.none(s.Consumer(), 2*s.Silence)
}
