// Package jetstream is the adapter to NATS JetStream: one stream, one subject
// and one durable pull consumer a pipeline.
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

// Options are how to reach the server and what streams look like.
type Options struct {
	URL      string // nats://host:port, several with commas
	User     string // empty: none
	Password string
	Creds    string        // path of a credentials file; empty: none
	AckWait  time.Duration // a delivery that is silent for so long comes again
	MaxAge   time.Duration // of a notification nobody took; the sweep finds its object
	MaxBytes int64         // of a stream
	Replicas int

	// NotifyARN is the target of a store's notification rules. {PIPELINE} becomes EVENTS or ERRORS. Empty: Subscribe
	// leaves the rules alone.
	NotifyARN string

	TLS *tls.Config // nil: as the URL's scheme says
}

// Queue is a connection.
type Queue struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	opts Options
	last *atomic.Value // error of the last attempt to connect
}

// Connect returns at once, also while no server can be reached: the connection
// is made, and made again, in the background.
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

// hide keeps passwords out of an error's text.
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

// Close ends the connection.
func (q *Queue) Close() { q.nc.Close() }

// Ping asks the server for an answer, and says why there is none.
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

// connectError lets an atomic.Value hold errors of any type.
type connectError struct{ error }

// unreachable says why there is no connection. err is what waiting for it ended with.
func (q *Queue) unreachable(err error) error {
	if last, ok := q.last.Load().(connectError); ok {
		err = last.error
	} else if last := q.nc.LastError(); last != nil {
		err = last
	}
	return fmt.Errorf("no connection to the queue at %s: %w", show.URL(q.opts.URL),
		retry.As(retry.Outage, q.opts.hide(err)))
}

// failed names what failed; without a connection, why there is none.
func (q *Queue) failed(what string, err error) error {
	if !q.nc.IsConnected() {
		return q.unreachable(err)
	}
	return fmt.Errorf("%s: %w", what, retry.As(retry.Outage, err))
}

// StreamName is the name of a pipeline's stream.
func StreamName(s pipeline.Spec) string { return "PENSTOCK_" + s.Name }

// Subject is where notifications of a pipeline's objects are published.
func Subject(s pipeline.Spec) string { return "penstock." + s.Name }

// consumerName is the durable that all loaders of a pipeline share.
const consumerName = "loader"

// Setup creates or updates the pipelines' streams and consumers, and the stream
// of dead letters.
func (q *Queue) Setup(ctx context.Context, specs []pipeline.Spec, plan *provision.Plan) error {
	if plan != nil {
		// Our own server, so there is nothing to be asked for but a dry run.
		return plan.Make(provision.Change{Subject: "streams", What: "brought streams up to date at " + show.URL(q.opts.URL),
			Do: func() error { return q.Setup(ctx, specs, nil) }})
	}
	for _, s := range specs {
		_, err := q.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name:     StreamName(s),
			Subjects: []string{Subject(s)},
			// A notification is of use until it is settled, no longer.
			Retention: jetstream.WorkQueuePolicy,
			Storage:   jetstream.FileStorage,
			// A full stream refuses rather than forgets: the store keeps and retries.
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

// Limits are none.
func (q *Queue) Limits() queue.Limits { return queue.Limits{} }

// Subscribe sets notification rules whose targets the store has in its own configuration, as MinIO has.
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
		// The loader counts attempts; the server's limit would strand messages.
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

// Enqueue adds a notification as a store would send it; told is true where that
// was done already within the hour. again enqueues it all the same.
func (q *Queue) Enqueue(ctx context.Context, s pipeline.Spec, n pipeline.Notification,
	again bool) (told bool, err error) {
	id := fmt.Sprintf("%s@%s/%d", n.Key, n.ETag, time.Now().Unix()/int64(queue.EnqueueOnce.Seconds()))
	if again {
		id += fmt.Sprintf("/%d", time.Now().UnixNano())
	}
	// While the stream's replicas elect a leader, nobody answers.
	ack, err := q.js.Publish(ctx, Subject(s), queue.Format(n), jetstream.WithMsgID(id),
		jetstream.WithRetryWait(electionWait), jetstream.WithRetryAttempts(electionTries))
	if err != nil {
		return false, q.failed("enqueue "+n.Key, err)
	}
	return ack.Duplicate, nil
}

// consumer takes one pipeline's notifications.
type consumer struct {
	queue *Queue
	spec  pipeline.Spec
	cons  jetstream.Consumer
}

// Consumer does not connect; Receive does.
func (q *Queue) Consumer(s pipeline.Spec) queue.Consumer { return &consumer{queue: q, spec: s} }

// receiveWait is how long a Receive waits for a first message.
const receiveWait = 5 * time.Second

// Receive takes up to max messages, waiting some seconds for the first; none
// is no error. Where the stream or its consumer was deleted it is made again.
// It is for one goroutine.
func (c *consumer) Receive(ctx context.Context, max int) ([]pipeline.Delivery, error) {
	if c.cons == nil {
		// Set up again: somebody may have deleted it, or our ack wait is another.
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
	// A Fetch of several would wait for all of them: so wait for one, then take
	// what else is there.
	first, err := c.cons.Next(jetstream.FetchContext(wait))
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
			return nil, nil
		}
		c.cons = nil // it may be gone
		return nil, c.queue.failed("receive from "+StreamName(c.spec), err)
	}
	all := []pipeline.Delivery{&message{m: first}}
	if max == 1 {
		return all, nil
	}
	more, err := c.cons.FetchNoWait(max - 1)
	if err != nil {
		return all, nil // the first is good; the next Receive meets the error
	}
	for m := range more.Messages() {
		all = append(all, &message{m: m})
	}
	return all, nil
}

// message is one delivery.
type message struct{ m jetstream.Msg }

// Notifications are what the store's message says.
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

// Ack settles the message and waits for the server to say so.
func (m *message) Ack(ctx context.Context) error {
	if err := m.m.DoubleAck(ctx); err != nil {
		return fmt.Errorf("ack: %w", retry.As(retry.Outage, err))
	}
	return nil
}

// Nak asks for the message again after a delay.
func (m *message) Nak(delay time.Duration) error { return m.m.NakWithDelay(delay) }

// Extend says that work on the message goes on; it must come more often than
// Options.AckWait.
func (m *message) Extend() error { return m.m.InProgress() }

// Stats asks the server.
func (q *Queue) Stats(ctx context.Context, s pipeline.Spec) (queue.Stats, error) {
	cons, err := q.js.Consumer(ctx, StreamName(s), consumerName)
	if err != nil {
		return queue.Stats{}, fmt.Errorf("read queue %s: %w", StreamName(s), retry.As(retry.Outage, err))
	}
	info := cons.CachedInfo()
	return queue.Stats{Pending: info.NumPending, InFlight: info.NumAckPending}, nil
}
