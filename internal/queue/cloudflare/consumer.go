package cloudflare

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
)

// Limits of Cloudflare Queues.
const (
	maxBatch = 100            // messages in a pull
	maxDelay = 24 * time.Hour // before a retry
	maxLease = 12 * time.Hour
	countLag = 2 * time.Minute // of the approximate counts; not documented
)

// Cloudflare answers a pull at once even if the queue is empty, and charges for it. So the wait between two pulls of an
// empty queue doubles from firstWait to Options.Poll. receiveWait bounds one Receive.
const (
	firstWait   = 250 * time.Millisecond
	receiveWait = 5 * time.Second
)

// consumer pulls one pipeline's notifications.
type consumer struct {
	queue *Queue
	spec  pipeline.Spec
	due   time.Time     // of the next pull
	wait  time.Duration // after the last pull if it was empty; 0: it was not
}

// Consumer does not connect; Receive does.
func (q *Queue) Consumer(s pipeline.Spec) queue.Consumer { return &consumer{queue: q, spec: s} }

// Receive pulls once, when the next pull is due.
func (c *consumer) Receive(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if wait := time.Until(c.due); wait > 0 {
		if err := retry.Sleep(ctx, min(wait, receiveWait)); err != nil || wait > receiveWait {
			return nil, err
		}
	}
	messages, err := c.pull(ctx, min(max, maxBatch))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.queue.forget(c.spec, err)
		c.due = time.Now().Add(as(err).wait)
		return nil, fmt.Errorf("pull from queue %s: %w", c.queue.name(c.spec), err)
	}
	if len(messages) == 0 {
		c.wait = min(2*c.wait+firstWait, c.queue.opts.Poll)
	} else {
		c.wait = 0
	}
	c.due = time.Now().Add(c.wait)
	return messages, nil
}

func (c *consumer) pull(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	path, err := c.queue.path(ctx, c.spec)
	if err != nil {
		return nil, err
	}
	in := map[string]int64{"batch_size": int64(max), "visibility_timeout_ms": c.queue.lease().Milliseconds()}
	var out struct {
		Messages []message `json:"messages"`
	}
	if err := c.queue.api.call(ctx, http.MethodPost, path+"/messages/pull", in, &out); err != nil {
		return nil, err
	}
	all := make([]pipeline.Delivery, 0, len(out.Messages))
	for _, m := range out.Messages {
		m.queue, m.path = c.queue, path
		all = append(all, &m)
	}
	return all, nil
}

// lease is how long a delivery belongs to the loader that pulled it.
func (q *Queue) lease() time.Duration { return min(q.opts.Lease, maxLease) }

// message is one delivery.
type message struct {
	Body     string         `json:"body"`
	Lease    string         `json:"lease_id"`
	Attempts float64        `json:"attempts"`
	Metadata map[string]any `json:"metadata"`

	queue *Queue
	path  string // of its queue
}

// Notifications parses the store's message. Text arrives unchanged, and JSON, which R2 sends, in base64. A notification
// as text is never valid base64, so a message without its type can be read too.
func (m *message) Notifications() ([]pipeline.Notification, error) {
	body := []byte(m.Body)
	if m.Metadata["CF-Content-Type"] != "text" {
		if decoded, err := base64.StdEncoding.DecodeString(m.Body); err == nil {
			body = decoded
		}
	}
	return queue.Notifications(body)
}

// Attempt counts deliveries, from 1.
func (m *message) Attempt() int { return max(1, int(m.Attempts)) }

// Ack deletes the message. Cloudflare accepts that even after the lease.
func (m *message) Ack(ctx context.Context) error {
	if err := m.settle(ctx, "acks", map[string]any{"lease_id": m.Lease}); err != nil {
		return fmt.Errorf("ack: %w", err)
	}
	return nil
}

// Nak asks for the message again after a delay.
func (m *message) Nak(delay time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	seconds := math.Ceil(min(delay, maxDelay).Seconds())
	return m.settle(ctx, "retries", map[string]any{"lease_id": m.Lease, "delay_seconds": int64(seconds)})
}

// Extend does nothing, see Limits.FixedLease.
func (m *message) Extend() error { return nil }

// settleTries is the number of calls to settle one message. If all fail, it is delivered again, which costs one look at
// the ledger.
const settleTries = 4

func (m *message) settle(ctx context.Context, list string, lease map[string]any) error {
	backoff := retry.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	for n := 1; ; n++ {
		err := m.queue.api.call(ctx, http.MethodPost, m.path+"/messages/ack", map[string]any{list: []any{lease}}, nil)
		if err == nil || n == settleTries || as(err).rejected() || as(err).missing() {
			return err
		}
		if retry.Sleep(ctx, max(backoff.Delay(n), as(err).wait)) != nil {
			return err
		}
	}
}
