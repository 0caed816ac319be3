package load

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/traffic"
)

// fakeConn answers after took, and rejects or loses requests as told.
type fakeConn struct {
	mu     sync.Mutex
	took   time.Duration
	stall  time.Duration // of the first request
	result func(request int) error
	firsts []uint64
}

func (f *fakeConn) Post(body *traffic.Body, first uint64) (traffic.Answer, error) {
	f.mu.Lock()
	request, wait := len(f.firsts), f.took
	f.firsts = append(f.firsts, first)
	f.mu.Unlock()
	if request == 0 {
		wait += f.stall
	}
	time.Sleep(wait)
	if f.result != nil {
		if err := f.result(request); err != nil {
			return traffic.Answer{}, err
		}
	}
	return traffic.Answer{Accepted: body.Events()}, nil
}

func (f *fakeConn) Close() error { return nil }

func clients(f *fakeConn, connections int) Clients {
	return Clients{Bodies: []*traffic.Body{traffic.NewBody(traffic.New("t", 1), 10)}, Connections: connections,
		Dial: func(context.Context) (Poster, error) { return f, nil }, nap: time.Sleep}
}

// At a fixed rate, requests are sent when they are due. A connection that hangs for a second is charged for those that
// were due meanwhile.
func TestFixedRate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := &fakeConn{took: time.Millisecond, stall: time.Second}
		c := clients(f, 1)
		c.Rate, c.Events = 1000, 3000 // 300 requests, one in 10 ms
		var live Counts
		sent, err := c.Run(t.Context(), &live)
		if err != nil {
			t.Fatal(err)
		}
		if sent.Accepted != 3000 || live.Accepted.Load() != 3000 || sent.Latency.Count() != 300 ||
			sent.Elapsed != 3*time.Second {
			t.Errorf("accepted %d (live %d), %d requests, %s", sent.Accepted, live.Accepted.Load(), sent.Latency.Count(),
				sent.Elapsed)
		}
		// Behind the stall each request is 9 ms less late than the one before: about 111 of the 300.
		if got := sent.Latency.Max(); got != 1001*time.Millisecond {
			t.Errorf("max %s, want 1.001s", got)
		}
		if got := sent.Latency.Quantile(0.75); got < 200*time.Millisecond || got > 400*time.Millisecond {
			t.Errorf("p75 %s: the requests that waited are not charged", got)
		}
		if got := sent.Latency.Quantile(0.5); got < time.Millisecond || got > 1100*time.Microsecond {
			t.Errorf("p50 %s, want 1ms", got)
		}
		if got := sent.Late.Max(); got != 991*time.Millisecond {
			t.Errorf("latest begin %s, want 991ms", got)
		}
	})
}

// If a receiver is slower than the rate, requests that were due and could not be sent are reported.
func TestRateTooHigh(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := clients(&fakeConn{took: 100 * time.Millisecond}, 2)
		c.Rate, c.Duration = 1000, 10*time.Second
		sent, err := c.Run(t.Context(), new(Counts))
		if err != nil {
			t.Fatal(err)
		}
		if sent.Accepted != 2200 || sent.Unsent != 10_000-2200 || sent.Elapsed != 11010*time.Millisecond {
			t.Errorf("accepted %d, unsent %d, %s", sent.Accepted, sent.Unsent, sent.Elapsed)
		}
	})
}

func TestClosedLoop(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := &fakeConn{took: 10 * time.Millisecond}
		c := clients(f, 4)
		c.Duration, c.First = time.Second, 1000
		sent, err := c.Run(t.Context(), new(Counts))
		if err != nil {
			t.Fatal(err)
		}
		if sent.Accepted != 4000 || sent.Unsent != 0 || sent.Latency.Max() != 10*time.Millisecond {
			t.Errorf("accepted %d, unsent %d, max %s", sent.Accepted, sent.Unsent, sent.Latency.Max())
		}
		seen := map[uint64]bool{}
		for _, n := range f.firsts {
			seen[n] = true
		}
		if len(seen) != 400 || !seen[1000] || !seen[1000+399*10] {
			t.Errorf("%d different numbers of 400 requests", len(seen))
		}
	})
}

func TestFailures(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := &fakeConn{took: time.Millisecond, result: func(request int) error {
			switch request {
			case 3, 4:
				return &StatusError{Status: 503}
			case 5:
				return errors.New("cut")
			}
			return nil
		}}
		c := clients(f, 1)
		c.Events = 100
		sent, err := c.Run(t.Context(), new(Counts))
		if err != nil {
			t.Fatal(err)
		}
		if sent.Accepted != 70 || sent.Unknown != 10 || sent.Failures["503"] != 2 || sent.Failures["connection"] != 1 ||
			sent.Failed() != 3 || sent.FirstFailure == nil {
			t.Errorf("%+v accepted %d unknown %d", sent.Failures, sent.Accepted, sent.Unknown)
		}
	})
}

func TestRunEndsWithContext(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := clients(&fakeConn{took: time.Millisecond}, 3)
		c.Rate = 10
		if _, err := c.Run(ctx, new(Counts)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}
