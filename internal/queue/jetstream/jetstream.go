// Package jetstream is the adapter to NATS JetStream. Each pipeline has one stream, one subject and one durable pull
// consumer.
package jetstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// Options describe the server and its streams.
type Options struct {
	URL      string // nats://host:port, several separated by commas
	User     string // empty: none
	Password string
	Creds    string        // path of a credentials file; empty: none
	AckWait  time.Duration // lease of a delivery, after which it is delivered again
	MaxAge   time.Duration // how long messages are kept; a sweep finds their objects
	MaxBytes int64         // size of a stream
	Replicas int

	// NotifyARN is the target of a store's notification rules. {PIPELINE} becomes EVENTS or ERRORS. Empty: Subscribe
	// leaves the rules alone.
	NotifyARN string

	TLS *tls.Config // nil: by the URL's scheme
}

// Queue is a connection to NATS.
type Queue struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	opts Options
	last *atomic.Value // error of the last attempt to connect
}

// Connect returns at once. It connects, and reconnects, in the background.
func Connect(opts Options, name string, log *slog.Logger) (*Queue, error) {
	last := &atomic.Value{}
	o := []nats.Option{
		nats.Name(name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500 * time.Millisecond),
		nats.ReconnectJitter(500*time.Millisecond, time.Second),
		nats.PingInterval(10 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("queue connection lost", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { last.Store(connectError{err}) }),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("queue connection restored") }),
	}
	if opts.User != "" {
		o = append(o, nats.UserInfo(opts.User, opts.Password))
	}
	if opts.Creds != "" {
		o = append(o, nats.UserCredentials(opts.Creds))
	}
	if opts.TLS != nil {
		o = append(o, nats.Secure(opts.TLS))
	}
	nc, err := nats.Connect(opts.URL, o...)
	if err != nil {
		return nil, fmt.Errorf("connect to queue at %s: %w", show.URL(opts.URL), opts.hide(err))
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to queue: %w", err)
	}
	return &Queue{nc: nc, js: js, opts: opts, last: last}, nil
}

// hide removes passwords from an error's text.
func (o Options) hide(err error) error {
	secrets := []string{o.Password}
	for _, part := range strings.Split(o.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(part)); err == nil && u.User != nil {
			password, _ := u.User.Password()
			secrets = append(secrets, password)
		} else if err != nil && strings.Contains(part, "@") {
			secrets = append(secrets, part)
		}
	}
	return show.HideIn(err, secrets...)
}

// Close closes the connection.
func (q *Queue) Close() { q.nc.Close() }

// Ping waits for the server to answer, and returns why it does not.
func (q *Queue) Ping(ctx context.Context) error {
	for !q.nc.IsConnected() {
		if err := retry.Sleep(ctx, 20*time.Millisecond); err != nil {
			return q.unreachable(err)
		}
	}
	if err := q.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("ping queue: %w", retry.As(retry.Outage, err))
	}
	return nil
}

// connectError lets an atomic.Value hold errors of different types.
type connectError struct{ error }

// unreachable returns why there is no connection. err is the error of waiting for it.
func (q *Queue) unreachable(err error) error {
	if last, ok := q.last.Load().(connectError); ok {
		err = last.error
	} else if last := q.nc.LastError(); last != nil {
		err = last
	}
	return fmt.Errorf("no connection to the queue at %s: %w", show.URL(q.opts.URL),
		retry.As(retry.Outage, q.opts.hide(err)))
}

// failed wraps an error with what failed, or with why there is no connection.
func (q *Queue) failed(what string, err error) error {
	if !q.nc.IsConnected() {
		return q.unreachable(err)
	}
	return fmt.Errorf("%s: %w", what, retry.As(retry.Outage, err))
}

// StreamName is the name of a pipeline's stream.
func StreamName(s pipeline.Spec) string { return "PENSTOCK_" + s.Name }

// Subject is the subject for notifications of a pipeline's objects.
func Subject(s pipeline.Spec) string { return "penstock." + s.Name }

// consumerName is the durable consumer that all loaders of a pipeline share.
const consumerName = "loader"

// Setup creates or updates the pipelines' streams and consumers, and the stream
// of dead letters.
func (q *Queue) Setup(ctx context.Context, specs []pipeline.Spec, plan *provision.Plan) error {
	if plan != nil {
		// This is our own server, so only a dry run needs a plan.
		return plan.Make(provision.Change{Subject: "streams", What: "brought streams up to date at " + show.URL(q.opts.URL),
			Do: func() error { return q.Setup(ctx, specs, nil) }})
	}
	for _, s := range specs {
		_, err := q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name:     StreamName(s),
			Subjects: []string{Subject(s)},
			// A notification is useless once it is settled.
			Retention: jetstream.WorkQueuePolicy,
			Storage:   jetstream.FileStorage,
			// If the stream is full, reject new messages: the store keeps them and retries.
			Discard:    jetstream.DiscardNew,
			MaxAge:     q.opts.MaxAge,
			MaxBytes:   q.opts.MaxBytes,
			Replicas:   q.opts.Replicas,
			Duplicates: min(queue.EnqueueOnce, q.opts.MaxAge),
		})
		if err != nil {
			return q.failed("set up stream "+StreamName(s), err)
		}
		if _, err := q.setupConsumer(ctx, s); err != nil {
			return err
		}
	}
	return q.setupDeadLetters(ctx)
}

// Limits has no limits.
func (q *Queue) Limits() queue.Limits { return queue.Limits{} }

// Subscribe sets notification rules. The store must have the targets in its own configuration, as MinIO does.
func (q *Queue) Subscribe(ctx context.Context, store queue.Store, specs []pipeline.Spec, plan *provision.Plan) error {
	if q.opts.NotifyARN == "" {
		return nil
	}
	arns := map[string]string{}
	for _, spec := range specs {
		arns[spec.Name] = strings.ReplaceAll(q.opts.NotifyARN, "{PIPELINE}", strings.ToUpper(spec.Name))
	}
	return store.Notify(ctx, specs, arns, plan)
}

func (q *Queue) setupConsumer(ctx context.Context, s pipeline.Spec) (jetstream.Consumer, error) {
	cons, err := q.js.CreateOrUpdateConsumer(ctx, StreamName(s), jetstream.ConsumerConfig{
		Durable:   consumerName,
		AckPolicy: jetstream.AckExplicitPolicy,
		AckWait:   q.opts.AckWait,
		// The loader counts attempts. The server's limit would strand messages.
		MaxDeliver:    -1,
		MaxAckPending: 4096,
	})
	if err != nil {
		return nil, q.failed("set up consumer "+StreamName(s)+"/"+consumerName, err)
	}
	return cons, nil
}

// An election takes some seconds. A context with a deadline ends the wait earlier.
const (
	electionWait  = 250 * time.Millisecond
	electionTries = 60
)

// Enqueue adds a notification as a store would. told is true if that was already done within the hour. again enqueues
// it anyway.
func (q *Queue) Enqueue(ctx context.Context, s pipeline.Spec, n pipeline.Notification,
	again bool) (told bool, err error) {
	id := fmt.Sprintf("%s@%s/%d", n.Key, n.ETag, time.Now().Unix()/int64(queue.EnqueueOnce.Seconds()))
	if again {
		id += fmt.Sprintf("/%d", time.Now().UnixNano())
	}
	// While replicas elect a leader for the stream, no server answers.
	ack, err := q.js.Publish(ctx, Subject(s), queue.Format(n), jetstream.WithMsgID(id),
		jetstream.WithRetryWait(electionWait), jetstream.WithRetryAttempts(electionTries))
	if err != nil {
		return false, q.failed("enqueue "+n.Key, err)
	}
	return ack.Duplicate, nil
}

// consumer receives one pipeline's notifications.
type consumer struct {
	queue *Queue
	spec  pipeline.Spec
	cons  jetstream.Consumer
}

// Consumer does not connect; Receive does.
func (q *Queue) Consumer(s pipeline.Spec) queue.Consumer { return &consumer{queue: q, spec: s} }

// receiveWait is how long Receive waits for the first message.
const receiveWait = 5 * time.Second

// Receive returns up to max messages, after waiting some seconds for the first one. Returning none is no error. It
// recreates the stream or its consumer if they were deleted. It is for one goroutine.
func (c *consumer) Receive(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	if c.cons == nil {
		// Run setup again: the consumer may have been deleted, or have another ack wait.
		cons, err := c.queue.setupConsumer(ctx, c.spec)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			if err = c.queue.Setup(ctx, []pipeline.Spec{c.spec}, nil); err == nil {
				cons, err = c.queue.setupConsumer(ctx, c.spec)
			}
		}
		if err != nil {
			return nil, err
		}
		c.cons = cons
	}
	wait, cancel := context.WithTimeout(ctx, receiveWait)
	defer cancel()
	// Fetching several waits for all of them. So wait for one, then take the others that are ready.
	first, err := c.cons.Next(jetstream.FetchContext(wait))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) { // its timer has not fired yet, but nats.go refuses it
			return nil, context.DeadlineExceeded
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
			return nil, nil
		}
		c.cons = nil // the consumer may be gone
		return nil, c.queue.failed("receive from "+StreamName(c.spec), err)
	}
	all := []pipeline.Delivery{&message{m: first}}
	if max == 1 {
		return all, nil
	}
	more, err := c.cons.FetchNoWait(max - 1)
	if err != nil {
		return all, nil // the first message is good; the next Receive reports the error
	}
	for m := range more.Messages() {
		all = append(all, &message{m: m})
	}
	return all, nil
}

// message is one delivery.
type message struct{ m jetstream.Msg }

// Notifications parses the store's message.
func (m *message) Notifications() ([]pipeline.Notification, error) {
	return queue.Notifications(m.m.Data())
}

// Attempt counts deliveries, from 1.
func (m *message) Attempt() int {
	meta, err := m.m.Metadata()
	if err != nil {
		return 1
	}
	return int(meta.NumDelivered)
}

// Ack settles the message, and waits for the server's confirmation.
func (m *message) Ack(ctx context.Context) error {
	if err := m.m.DoubleAck(ctx); err != nil {
		return fmt.Errorf("ack: %w", retry.As(retry.Outage, err))
	}
	return nil
}

// Nak asks for the message again after a delay.
func (m *message) Nak(delay time.Duration) error { return m.m.NakWithDelay(delay) }

// Extend renews the lease. Call it more often than Options.AckWait.
func (m *message) Extend() error { return m.m.InProgress() }

// Stats reads the counts from the server.
func (q *Queue) Stats(ctx context.Context, s pipeline.Spec) (queue.Stats, error) {
	cons, err := q.js.Consumer(ctx, StreamName(s), consumerName)
	if err != nil {
		return queue.Stats{}, fmt.Errorf("read queue %s: %w", StreamName(s), retry.As(retry.Outage, err))
	}
	info := cons.CachedInfo()
	return queue.Stats{Pending: info.NumPending, InFlight: info.NumAckPending}, nil
}
