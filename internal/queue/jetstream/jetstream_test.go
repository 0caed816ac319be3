package jetstream

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/devstack"
)

func connect(t *testing.T, ackWait time.Duration) (*Queue, *devstack.NATS) {
	t.Helper()
	n := servers.NATS(t)
	q, err := Connect(Options{URL: n.URL(), AckWait: ackWait, MaxAge: time.Hour, MaxBytes: 1 << 20, Replicas: 1}, "test",
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	for range 2 { // the second run finds everything done
		if err := q.Setup(t.Context(), pipeline.Specs(), nil); err != nil {
			t.Fatal(err)
		}
	}
	return q, n
}

func publish(t *testing.T, q *Queue, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := q.js.Publish(t.Context(), Subject(pipeline.Events), fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
}

func receive(t *testing.T, c queue.Consumer, max int) []pipeline.Delivery {
	t.Helper()
	m, err := c.Receive(t.Context(), max)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReceiveSettles(t *testing.T) {
	q, _ := connect(t, time.Minute)
	c := q.Consumer(pipeline.Events)
	publish(t, q, 0, 5)
	began := time.Now()
	first := receive(t, c, 3)
	if len(first) != 3 || bodyOf(first[0]) != "0" || first[0].Attempt() != 1 {
		t.Fatalf("got %d messages", len(first))
	}
	// Receive returns fewer than max messages without waiting for more.
	rest := receive(t, c, 10)
	if len(rest) != 2 || time.Since(began) > 4*time.Second {
		t.Errorf("got %d messages after %s", len(rest), time.Since(began))
	}
	if st, err := q.Stats(t.Context(), pipeline.Events); err != nil || st.InFlight != 5 || st.Pending != 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
	for _, m := range append(first[1:], rest...) {
		if err := m.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := first[0].Nak(100 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	again := receive(t, c, 10)
	if len(again) != 1 || again[0].Attempt() != 2 || bodyOf(again[0]) != "0" {
		t.Errorf("after nak: %d messages", len(again))
	}
	again[0].Ack(t.Context())
	if st, err := q.Stats(t.Context(), pipeline.Events); err != nil || st.InFlight != 0 || st.Pending != 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
}

// The queue is disposable: if a stream is deleted, its consumer creates it again.
func TestStreamDeleted(t *testing.T) {
	q, _ := connect(t, time.Minute)
	c := q.Consumer(pipeline.Events)
	publish(t, q, 0, 1)
	receive(t, c, 1)[0].Ack(t.Context())
	for _, what := range []func() error{
		func() error { return q.js.DeleteStream(t.Context(), StreamName(pipeline.Events)) },
		func() error { return q.js.DeleteConsumer(t.Context(), StreamName(pipeline.Events), consumerName) },
	} {
		if err := what(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(30 * time.Second)
		for i := 100; ; i++ {
			q.js.Publish(t.Context(), Subject(pipeline.Events), fmt.Append(nil, i))
			m, _ := c.Receive(t.Context(), 1)
			if len(m) == 1 {
				m[0].Ack(t.Context())
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing comes any more")
			}
		}
	}
}

// Without a leader, no server answers for a stream. A publish waits for a leader; in this test it waits for the stream
// itself.
func TestPublishWaitsForALeader(t *testing.T) {
	q, _ := connect(t, time.Minute)
	if err := q.js.DeleteStream(t.Context(), StreamName(pipeline.Events)); err != nil {
		t.Fatal(err)
	}
	back := make(chan error, 1)
	time.AfterFunc(time.Second, func() { back <- q.Setup(context.Background(), pipeline.Specs(), nil) })
	began := time.Now()
	if _, err := q.Enqueue(t.Context(), pipeline.Events, pipeline.Notification{Key: "events/a"}, false); err != nil {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := q.js.DeleteStream(t.Context(), StreamName(pipeline.Events)); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Enqueue(ctx, pipeline.Events, pipeline.Notification{Key: "events/b"}, false); err == nil ||
		retry.ClassOf(err) != retry.Outage {
		t.Errorf("without a stream: %v, want an outage when the context ends", err)
	}
}

// NATS is away at the start and again later. Calls return errors, then work again.
func TestServerAway(t *testing.T) {
	q, n := connect(t, time.Minute)
	c := q.Consumer(pipeline.Events)
	publish(t, q, 0, 1)
	receive(t, c, 1)[0].Ack(t.Context())
	n.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	if m, err := c.Receive(ctx, 1); err == nil && len(m) > 0 {
		t.Error("a message from a server that is away")
	}
	cancel()
	late, err := Connect(Options{URL: n.URL(), AckWait: time.Minute, MaxAge: time.Hour, MaxBytes: 1 << 20, Replicas: 1},
		"late", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("connect while away: %v", err)
	}
	defer late.Close()
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for _, q := range []*Queue{q, late} {
		for {
			if _, err := q.js.Publish(t.Context(), Subject(pipeline.Events), []byte("x")); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	for got := 0; got < 2; {
		m, _ := c.Receive(t.Context(), 2)
		got += len(m)
		if time.Now().After(deadline) {
			t.Fatalf("got %d messages of 2", got)
		}
	}
}

// A full stream rejects new messages, and drops none of its own.
func TestFullStreamRefuses(t *testing.T) {
	q, _ := connect(t, time.Minute)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = q.js.Publish(t.Context(), Subject(pipeline.Events), make([]byte, 64<<10))
	}
	if err == nil {
		t.Error("a stream of 1 MiB took 6 MiB")
	}
	info, err := q.js.Stream(t.Context(), StreamName(pipeline.Events))
	if err != nil {
		t.Fatal(err)
	}
	if s := info.CachedInfo().State; s.FirstSeq != 1 {
		t.Errorf("the first message is %d", s.FirstSeq)
	}
}

func bodyOf(d pipeline.Delivery) string { return string(d.(*message).m.Data()) }
