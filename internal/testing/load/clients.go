// Package load generates load: clients that post events at a fixed rate or as fast as they are answered. It also reads
// the CPU time and memory of processes from /proc.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/traffic"
)

// Clients are connections that send the same bodies again and again.
//
// At a fixed rate each request has a time at which it is due, whatever became of
// those before it, and its latency counts from then: a receiver that stalls is
// charged for all requests that had to wait, sent or not. Without a rate each
// connection sends its next request when it has the answer to the last.
type Clients struct {
	Bodies      []*traffic.Body // in turn; all of the same number of events
	Connections int
	Rate        float64       // events a second over all connections; 0: as fast as they are answered
	Events      int           // to send in all, a multiple of a body's; 0: until Duration is over
	Duration    time.Duration // in which requests are due; 0: no limit but Events
	First       uint64        // number of the first event, see traffic.Body
	Dial        func(context.Context) (Poster, error)

	nap func(time.Duration) // nil: that of the machine
}

// Poster is a connection.
type Poster interface {
	// Post returns a *StatusError where the connection is still good.
	Post(body *traffic.Body, first uint64) (traffic.Answer, error)
	io.Closer
}

const (
	// overtime is how much later than Duration requests still begin that were
	// due before; those behind are not sent.
	overtime = time.Second
	// rest is how long a connection does nothing after its request was refused.
	rest = 100 * time.Millisecond
	// redials is how often a connection that is lost is made again, in a row.
	redials = 8
)

// Counts may be read while Clients run.
type Counts struct{ Accepted, Rejected atomic.Int64 }

// Sent is what Clients have done.
type Sent struct {
	Accepted, Rejected int64 // events
	Unknown            int64 // events of requests that were cut off: they may have been taken
	Unsent             int64 // events that were due in Duration and never sent
	Bytes              int64 // of the bodies answered with 2xx
	// from the start to the last answer; at a rate at least until the next request would be due
	Elapsed      time.Duration
	Latency      Histogram        // of the requests answered with 2xx
	Late         Histogram        // from when each request was due until it began
	Failures     map[string]int64 // requests, by status or "connection"
	FirstFailure error            // nil: none
}

func (s *Sent) add(other *Sent) {
	s.Accepted += other.Accepted
	s.Rejected += other.Rejected
	s.Unknown += other.Unknown
	s.Bytes += other.Bytes
	s.Elapsed = max(s.Elapsed, other.Elapsed)
	s.Latency.Add(&other.Latency)
	s.Late.Add(&other.Late)
	for name, n := range other.Failures {
		s.Failures[name] += n
	}
	if s.FirstFailure == nil {
		s.FirstFailure = other.FirstFailure
	}
}

// Failed is how many requests were not answered with 2xx.
func (s *Sent) Failed() (n int64) {
	for _, f := range s.Failures {
		n += f
	}
	return n
}

// Run sends until Events or Duration, and adds to live as it goes. It fails
// where no connection can be had, and when ctx ends.
func (c Clients) Run(ctx context.Context, live *Counts) (*Sent, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	clients := make([]*client, c.Connections)
	for i := range clients {
		clients[i] = &client{Clients: c, live: live, sent: Sent{Failures: map[string]int64{}}}
		defer clients[i].close()
		if err := clients[i].dial(ctx); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	next := c.next(ctx, start)
	var wg sync.WaitGroup
	for _, one := range clients {
		wg.Go(func() {
			if err := one.run(ctx, start, next); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	all := &Sent{Failures: map[string]int64{}}
	for _, one := range clients {
		all.add(&one.sent)
	}
	if c.Rate > 0 {
		all.Elapsed = max(all.Elapsed, c.due(c.planned()))
		begun := int64(all.Late.Count())
		all.Unsent = (c.planned() - begun) * c.batch()
	}
	return all, nil
}

func (c Clients) batch() int64 { return int64(c.Bodies[0].Events()) }

// due is when request i is, from the start.
func (c Clients) due(i int64) time.Duration {
	return time.Duration(float64(i*c.batch()) / c.Rate * float64(time.Second))
}

// planned is how many requests there will be.
func (c Clients) planned() int64 {
	n := int64(math.MaxInt64)
	if c.Events > 0 {
		n = int64(c.Events) / c.batch()
	}
	if c.Rate > 0 && c.Duration > 0 {
		n = min(n, int64(math.Ceil(c.Duration.Seconds()*c.Rate/float64(c.batch()))))
	}
	return n
}

// client is one connection and what it has done.
type client struct {
	Clients
	live *Counts
	conn Poster
	stop func() bool // ctx's end closes the connection no more
	sent Sent
}

func (c *client) dial(ctx context.Context) error {
	conn, err := c.Dial(ctx)
	if err != nil {
		return err
	}
	c.conn, c.stop = conn, context.AfterFunc(ctx, func() { conn.Close() })
	return nil
}

func (c *client) close() {
	if c.conn != nil {
		c.stop()
		c.conn.Close()
		c.conn = nil
	}
}

// next returns what gives each connection its next request, when that is due:
// at once without a rate, and otherwise by one goroutine that waits for all.
func (c Clients) next(ctx context.Context, start time.Time) func() (i int64, ok bool) {
	planned := c.planned()
	if c.Rate == 0 {
		var taken atomic.Int64
		return func() (int64, bool) {
			i := taken.Add(1) - 1
			return i, i < planned && (c.Duration == 0 || time.Since(start) < c.Duration)
		}
	}
	requests := make(chan int64)
	go func() {
		defer close(requests)
		for i := range planned {
			if c.await(ctx, start.Add(c.due(i))) != nil {
				return
			}
			select {
			case requests <- i: // late where all connections are busy: its latency counts from when it was due
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() (int64, bool) {
		i, ok := <-requests
		return i, ok && (c.Duration == 0 || time.Since(start) < c.Duration+overtime)
	}
}

// coarse is more than Go's timers are late on a machine that has nothing to do,
// where they come in whole milliseconds.
const coarse = 1200 * time.Microsecond

// await waits until due to some 0.1 ms: the last of it in the kernel's sleep.
func (c Clients) await(ctx context.Context, due time.Time) error {
	if wait := time.Until(due) - coarse; wait > 0 {
		if err := retry.Sleep(ctx, wait); err != nil {
			return err
		}
	}
	sleep := c.nap
	if sleep == nil {
		sleep = nap
	}
	for wait := time.Until(due); wait > 0; wait = time.Until(due) {
		sleep(wait)
	}
	return ctx.Err()
}

// run sends one request after the other of those that are left.
func (c *client) run(ctx context.Context, start time.Time, next func() (int64, bool)) error {
	for {
		i, ok := next()
		if !ok {
			return ctx.Err()
		}
		now := time.Now()
		due := now
		if c.Rate > 0 {
			due = start.Add(c.due(i))
		}
		c.sent.Late.Record(now.Sub(due))
		if err := c.post(ctx, i, start, due); err != nil {
			return err
		}
	}
}

// post sends request i and counts what became of it. What it returns ends the run.
func (c *client) post(ctx context.Context, i int64, start, due time.Time) error {
	body := c.Bodies[i%int64(len(c.Bodies))]
	a, err := c.conn.Post(body, c.First+uint64(i*c.batch()))
	now := time.Now()
	c.sent.Elapsed = now.Sub(start)
	if err == nil {
		c.sent.Latency.Record(now.Sub(due))
		c.sent.Bytes += int64(body.Len())
		c.sent.Accepted += int64(a.Accepted)
		c.sent.Rejected += int64(a.Rejected)
		c.live.Accepted.Add(int64(a.Accepted))
		c.live.Rejected.Add(int64(a.Rejected))
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if c.sent.FirstFailure == nil {
		c.sent.FirstFailure = err
	}
	if refused, ok := errors.AsType[*StatusError](err); ok {
		c.sent.Failures[strconv.Itoa(refused.Status)]++
		return retry.Sleep(ctx, rest)
	}
	c.sent.Failures["connection"]++
	c.sent.Unknown += c.batch()
	return c.redial(ctx, err)
}

func (c *client) redial(ctx context.Context, lost error) error {
	c.close()
	for attempt := 1; attempt <= redials; attempt++ {
		if err := retry.Sleep(ctx, retry.Backoff{Min: 50 * time.Millisecond, Max: time.Second}.Delay(attempt)); err != nil {
			return err
		}
		if c.dial(ctx) == nil {
			return nil
		}
	}
	return fmt.Errorf("the connection cannot be had again: %w", lost)
}
