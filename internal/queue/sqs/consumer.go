package sqs

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
)

// consumer receives one pipeline's notifications.
type consumer struct {
	queue   *Queue
	spec    pipeline.Spec
	checked bool // the queue's attributes were checked
}

// Consumer does not connect; Receive does.
func (q *Queue) Consumer(s pipeline.Spec) queue.Consumer { return &consumer{queue: q, spec: s} }

// seconds rounds up, because SQS uses whole seconds.
func seconds(d time.Duration) int32 { return int32((d + time.Second - 1) / time.Second) }

// Receive polls for up to max messages, 10 at most. It requests only as many as the loader can start at once, so that
// few of SQS's 120,000 messages in flight wait here.
func (c *consumer) Receive(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	q := c.queue
	if err := c.check(ctx); err != nil {
		return nil, err
	}
	from, err := q.open(ctx, c.spec)
	if err != nil {
		return nil, err
	}
	out, err := q.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &from.url,
		MaxNumberOfMessages: int32(min(max, maxBatch)), WaitTimeSeconds: seconds(q.opts.Wait),
		VisibilityTimeout: seconds(q.opts.AckWait),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount}})
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		c.checked = false // the queue may be gone
		q.forget(c.spec)
		return nil, q.failed("receive from queue "+q.name(c.spec), err)
	}
	var all []pipeline.Delivery
	for _, m := range out.Messages {
		all = append(all, &message{from: from, queue: q, m: m, received: time.Now()})
	}
	return all, nil
}

// check checks the queue before the first message, and creates it if somebody deleted it.
func (c *consumer) check(ctx context.Context) error {
	if c.checked {
		return nil
	}
	q := c.queue
	a, err := q.attributes(ctx, c.spec)
	if missing(err) {
		if err = q.Setup(ctx, []pipeline.Spec{c.spec}, nil); err == nil {
			a, err = q.attributes(ctx, c.spec)
		}
	}
	if err != nil {
		return err
	}
	for _, text := range warnings(a) {
		q.log.Warn("queue "+q.name(c.spec)+": "+text, "pipeline", c.spec.Name)
	}
	c.checked = true
	return nil
}

// message is one delivery.
type message struct {
	from     *server
	queue    *Queue
	m        types.Message
	received time.Time
}

// Notifications parses the store's message.
func (m *message) Notifications() ([]pipeline.Notification, error) {
	return queue.Notifications([]byte(aws.ToString(m.m.Body)))
}

// Attempt counts deliveries, from 1.
func (m *message) Attempt() int {
	n, _ := strconv.Atoi(m.m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
	return max(n, 1)
}

// Ack deletes the message.
func (m *message) Ack(ctx context.Context) error {
	return m.from.deletes.delete(ctx, aws.ToString(m.m.ReceiptHandle))
}

// Nak makes the message visible again after a delay.
func (m *message) Nak(delay time.Duration) error { return m.hide("nak", delay) }

// Extend renews the lease.
func (m *message) Extend() error { return m.hide("extend", m.queue.opts.AckWait) }

// hideWait is the timeout of a request without a context.
const hideWait = 10 * time.Second

// hide hides the message from other loaders. SQS ends every lease 12 hours after the receive.
func (m *message) hide(what string, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), hideWait)
	defer cancel()
	left := maxLease - time.Since(m.received) - time.Minute
	d = max(0, min(d, left))
	_, err := m.queue.client.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &m.from.url,
		ReceiptHandle: m.m.ReceiptHandle, VisibilityTimeout: seconds(d)})
	if err != nil {
		return m.queue.failed(what, err)
	}
	return nil
}

// deletes batches deletions while a request is running. A single one does not wait; many share requests.
type deletes struct {
	queue *Queue
	url   string
	name  string

	mu      sync.Mutex
	waiting []deletion
	running bool
}

type deletion struct {
	receipt string
	done    chan error
}

// deleteWait is the timeout of one request.
const deleteWait = 30 * time.Second

// delete returns once SQS has deleted the message.
func (b *deletes) delete(ctx context.Context, receipt string) error {
	d := deletion{receipt, make(chan error, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, d)
	if !b.running {
		b.running = true
		go b.run()
	}
	b.mu.Unlock()
	select {
	case err := <-d.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run sends deletions until none are waiting.
func (b *deletes) run() {
	for {
		b.mu.Lock()
		n := min(len(b.waiting), maxBatch)
		batch := b.waiting[:n:n]
		b.waiting = b.waiting[n:]
		b.running = n > 0
		b.mu.Unlock()
		if n == 0 {
			return
		}
		for i, err := range b.send(batch) {
			batch[i].done <- err
		}
	}
}

// send returns the error of each deletion; nil: deleted.
func (b *deletes) send(batch []deletion) []error {
	ctx, cancel := context.WithTimeout(context.Background(), deleteWait)
	defer cancel()
	var entries []types.DeleteMessageBatchRequestEntry
	for i, d := range batch {
		entries = append(entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)),
			ReceiptHandle: aws.String(d.receipt)})
	}
	errs := make([]error, len(batch))
	out, err := b.queue.client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &b.url, Entries: entries})
	if err != nil {
		for i := range errs {
			errs[i] = b.queue.failed("delete from queue "+b.name, err)
		}
		return errs
	}
	for _, f := range out.Failed {
		if i, err := strconv.Atoi(aws.ToString(f.Id)); err == nil && i >= 0 && i < len(errs) {
			errs[i] = fmt.Errorf("delete from queue %s: %s: %s", b.name, aws.ToString(f.Code), aws.ToString(f.Message))
		}
	}
	return errs
}
