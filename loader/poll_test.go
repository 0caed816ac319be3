package loader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/queue/queuetest"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/loader/audit"
)

// Objects found elsewhere are delivered between two sweeps, and their number is limited.
func TestPollerTakesMore(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		p := &Poller{Spec: pipeline.Events, Owner: "l", Poll: 10 * time.Second, Every: time.Minute, Span: time.Hour,
			TTL: time.Minute, Bucket: newShelf(), Ledger: newShelf(),
			Claims: newShelf(), More: make(chan pipeline.Notification, 250)}
		var err error
		n := 0
		for ; err == nil && n < 1000; n++ {
			_, err = p.Enqueue(t.Context(), pipeline.Notification{Key: fmt.Sprint(n)})
		}
		if n--; n != 250 || !errors.Is(err, audit.ErrEnqueueLater) {
			t.Fatalf("%d taken, %v", n, err)
		}
		got := 0
		for range 100 {
			all, err := p.Receive(t.Context(), 4)
			if err != nil {
				t.Fatal(err)
			}
			got += len(all)
			time.Sleep(time.Second)
		}
		if got != 250 {
			t.Errorf("%d given out, want 250", got)
		}
	})
}

// acked is a delivery that marks its object as loaded when it is settled, like a loader.
type acked struct {
	pipeline.Delivery
	shelf *shelf
}

func (a acked) Ack(ctx context.Context) error {
	all, err := a.Notifications()
	if err != nil {
		return err
	}
	a.shelf.mu.Lock()
	a.shelf.loaded[all[0].Key] = true
	a.shelf.mu.Unlock()
	return a.Delivery.Ack(ctx)
}

// loading is a poller's consumer that loads what it acknowledges.
type loading struct {
	*Poller
	shelf *shelf
}

func (l loading) Receive(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	all, err := l.Poller.Receive(ctx, max)
	for i, d := range all {
		all[i] = acked{d, l.shelf}
	}
	return all, err
}

// A poller keeps the contract of a queue.
func TestPollerConformance(t *testing.T) {
	queuetest.Test(t, bubble.Test, func(*testing.T) queuetest.Queue {
		s := newShelf()
		const silence = 10 * time.Second
		owners := 0
		return queuetest.Queue{
			Silence:  silence,
			Patience: 5 * time.Minute,
			Add: func(key string) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.objects[key] = time.Now()
				return nil
			},
			Consumer: func() queue.Consumer {
				owners++
				return loading{s.poller(fmt.Sprint("loader", owners), silence), s}
			},
		}
	})
}

// A loader that was stopped for too long loses its claim, and sees that.
func TestPollerLosesAClaim(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newShelf()
		s.objects["events/a.parquet"] = time.Now()
		first, second := s.poller("a", time.Minute), s.poller("b", time.Minute)
		had, err := first.Receive(t.Context(), 1)
		if err != nil || len(had) != 1 {
			t.Fatalf("%d deliveries, %v", len(had), err)
		}
		time.Sleep(2 * time.Minute)
		if got, err := second.Receive(t.Context(), 1); err != nil || len(got) != 1 {
			t.Fatalf("another loader got %d deliveries, %v", len(got), err)
		}
		if err := had[0].Extend(); err == nil || !strings.Contains(err.Error(), "lost") {
			t.Errorf("error %v, want that the claim was lost", err)
		}
	})
}

// A sweep remembers a bounded number of objects; the next one finds the rest.
func TestPollerRemembersABoundedNumber(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newShelf()
		for i := range maxFound + 10 {
			s.objects[fmt.Sprintf("events/%06d.parquet", i)] = time.Now()
		}
		p := s.poller("a", time.Minute)
		got := 0
		for got < maxFound+10 {
			all, err := p.Receive(t.Context(), 1000)
			if err != nil || len(p.found) > maxFound {
				t.Fatalf("%d remembered, %v", len(p.found), err)
			}
			got += len(all)
			for _, d := range all {
				if err := (acked{d, s}).Ack(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(p.tried) != 0 || len(s.claims) != 0 {
			t.Errorf("%d objects are remembered, %d claims held, after all were settled", len(p.tried), len(s.claims))
		}
	})
}

// If the store is unreachable, the poller returns an error to the loader, which waits and retries.
func TestPollerFails(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newShelf()
		s.objects["events/a.parquet"] = time.Now()
		s.failing = errors.New("the store is away")
		p := s.poller("a", time.Minute)
		if all, err := p.Receive(t.Context(), 1); !errors.Is(err, s.failing) || len(all) > 0 {
			t.Errorf("%d deliveries, error %v, want that of the store", len(all), err)
		}
		s.failing = nil
		if all, err := p.Receive(t.Context(), 1); err != nil || len(all) != 1 {
			t.Errorf("%d deliveries, error %v", len(all), err)
		}
	})
}

// absent is an unreachable queue or bucket.
type absent struct{}

func (absent) Receive(context.Context, int) ([]pipeline.Delivery, error) {
	return nil, errors.New("no route")
}

func (absent) List(context.Context, string, string, string, func([]pipeline.Object) error) error {
	return errors.New("no route")
}

// The log blames the queue only if there is one.
func TestOutageOfReceiving(t *testing.T) {
	for _, tt := range []struct {
		queue Queue
		want  string
	}{
		{absent{}, `msg="queue unavailable; nothing is loaded"`},
		{&Poller{Spec: pipeline.Events, Poll: time.Second, Every: time.Minute, Span: time.Hour, Bucket: absent{}},
			`msg="bucket cannot be compared with the load ledger; nothing is loaded"`},
	} {
		bubble.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			l := New(pipeline.Events, Options{Workers: 1, Probe: retry.Backoff{Min: time.Second, Max: time.Second}},
				Parts{Queue: tt.queue}, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := l.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(log.String(), tt.want) || !strings.Contains(log.String(), "no route") {
				t.Errorf("%T: got\n%s, want %s", tt.queue, &log, tt.want)
			}
		})
	}
}
