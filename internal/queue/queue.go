package queue

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
)

// Queue is a connection to the queue that carries notifications to the loaders. It has one queue of notifications for
// each pipeline. Package queuetest tests the contract.
//
// Processes share the queue's server. Receivers, loaders and commands each open connections; what one enqueues, another
// receives. Opening a connection does not wait for the server. While the server is unreachable, methods fail with an
// error of class retry.Outage before their context's deadline. They work again once it is back. Methods are safe for
// concurrent use.
//
// The queue may lose messages, because the bucket and the load ledger know the same: a sweep enqueues them again.
//
// An adapter that can keep dead letters for subscribers also implements Letters.
type Queue interface {
	// Limits declares what the server cannot do.
	Limits() Limits

	// Setup creates or updates what the pipelines need on the server. Waiting messages stay. plan may be nil.
	Setup(ctx context.Context, specs []pipeline.Spec, plan *provision.Plan) error

	// Subscribe makes the store send notifications of the pipelines' objects to this queue. Setup must come first.
	Subscribe(ctx context.Context, store Store, specs []pipeline.Spec, plan *provision.Plan) error

	// Ping waits for the server to answer, and returns why it does not. ctx has a deadline.
	Ping(ctx context.Context) error

	// Enqueue adds a notification, and returns once the server has stored it. An object (key and ETag) is enqueued only
	// once within EnqueueOnce, over all connections, even if it was received meanwhile. If the object is known, nothing is
	// added, unless again is set. A queue with Limits.OwnMemory forgets what it knows when the server's queue is empty.
	Enqueue(ctx context.Context, spec pipeline.Spec, n pipeline.Notification, again bool) (known bool, err error)

	// Consumer receives a pipeline's notifications. It does not connect yet. All consumers of a pipeline share its
	// notifications: each delivery goes to one of them.
	Consumer(spec pipeline.Spec) Consumer

	Stats(ctx context.Context, spec pipeline.Spec) (Stats, error)

	// Close closes this connection. Deliveries that it did not settle are delivered again.
	Close()
}

// Limits are what a queue's server cannot do. The zero value has no limits.
type Limits struct {
	FixedLease      bool // Delivery.Extend has no effect: an object that loads for longer is delivered twice
	OwnMemory       bool // Enqueue remembers only what this connection has enqueued
	InFlightUnknown bool // Stats.InFlight is 0, and Stats.Pending also counts deliveries not yet settled
	MaxDeliveries   int  // the server deletes a message after these deliveries; a sweep finds its object. 0: never
}

// EnqueueOnce is how long an object is enqueued only once. It limits what sweeps add to a backlog. It is also how long
// an object whose message was purged cannot be enqueued again, except by queues with Limits.OwnMemory.
const EnqueueOnce = time.Hour

// Store is the bucket whose objects the notifications name.
type Store interface {
	Name() string

	// Notify sets the bucket's notification rules through the S3 API. arns are the targets, by pipeline. Other rules stay.
	Notify(ctx context.Context, specs []pipeline.Spec, arns map[string]string, plan *provision.Plan) error
}

// Letters keeps dead letters for subscribers. The load ledger has all of them.
type Letters interface {
	// DeadLetter publishes a dead letter, and returns once the server has stored it. A later letter of the same pipeline
	// and key replaces it.
	DeadLetter(ctx context.Context, d pipeline.DeadLetter) error

	// Forget removes an object's dead letter, if there is one.
	Forget(ctx context.Context, pipeline, key string) error

	// Rebuild replaces all dead letters, and returns how many there were.
	Rebuild(ctx context.Context, letters []pipeline.DeadLetter) (before uint64, err error)
}

// Consumer receives notifications. It is for one goroutine.
type Consumer interface {
	// Receive waits some seconds for the first of at most max deliveries. Returning none is no error. A delivery that is
	// neither settled nor extended within its lease (queue.ack_wait) is delivered again. If what Setup created was
	// deleted, Receive creates it again.
	Receive(ctx context.Context, max int) ([]pipeline.Delivery, error)
}

// Stats counts the messages in a pipeline's queue.
type Stats struct {
	Pending  uint64 `json:"pending"`   // not yet delivered
	InFlight int    `json:"in_flight"` // delivered, not settled
}
