package queue

import (
	"context"

	"github.com/penstock/penstock/internal/pipeline"
)

// Queue is a connection to the queue that carries notifications to the loaders, and dead letters to subscribers. It has
// one queue of notifications for each pipeline. Package queuetest tests what it must do.
//
// The queue is a server that processes share: receivers, loaders and commands each open several connections, and what
// one enqueues another receives. Opening a connection does not wait for the server. While the server cannot be reached,
// methods fail with an error of class retry.Outage before their context's deadline, and work again once it is back.
// Methods are for concurrent use.
//
// The bucket and the load ledger know all that the queue knows, so it may lose messages: a sweep enqueues them again.
type Queue interface {
	// Setup creates what the pipelines need on the server, or brings it up to date. What waits stays.
	Setup(ctx context.Context, specs []pipeline.Spec) error

	// Ping waits for an answer of the server, and returns why there is none. ctx has a deadline.
	Ping(ctx context.Context) error

	// Enqueue adds a notification, and returns when the server has stored it. An object (key and ETag) is enqueued once
	// within an hour, whichever connection does it and whether or not it was received meanwhile. If it is known, nothing
	// is added, unless again is set.
	Enqueue(ctx context.Context, spec pipeline.Spec, n pipeline.Notification, again bool) (known bool, err error)

	// Consumer receives a pipeline's notifications. It does not connect. All consumers of a pipeline share its
	// notifications: a delivery goes to one of them.
	Consumer(spec pipeline.Spec) Consumer

	Stats(ctx context.Context, spec pipeline.Spec) (Stats, error)

	// DeadLetter publishes a dead letter, and returns when the server has stored it. A later letter of the same pipeline
	// and key replaces it.
	DeadLetter(ctx context.Context, d pipeline.DeadLetter) error

	// Forget removes the dead letter of an object. It is no error if there is none.
	Forget(ctx context.Context, pipeline, key string) error

	// Rebuild replaces all dead letters, and returns how many there were.
	Rebuild(ctx context.Context, letters []pipeline.DeadLetter) (before uint64, err error)

	// Close ends this connection. What it received and did not settle is delivered again.
	Close()
}

// Consumer receives notifications. It is for one goroutine.
type Consumer interface {
	// Receive waits some seconds for the first of at most max deliveries. None is no error. A delivery that is neither
	// settled nor extended within queue.ack_wait is delivered again. If what Setup created was deleted, Receive creates
	// it again.
	Receive(ctx context.Context, max int) ([]pipeline.Delivery, error)
}

// Stats counts the messages in a pipeline's queue.
type Stats struct {
	Pending  uint64 `json:"pending"`   // not yet delivered
	InFlight int    `json:"in_flight"` // delivered, not settled
}
