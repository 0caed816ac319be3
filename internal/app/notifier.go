package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
)

const (
	notifyWait    = 2 * time.Second // for one attempt
	notifyFor     = time.Minute     // for all attempts at one object
	notifyDrain   = 5 * time.Second // for what waits at the end
	notifyWaiting = 1000            // objects
)

// notifier tells the queue of stored objects. Uploads do not wait for it: a queue that is away, or elects a leader, is
// tried again for a minute. What the queue does not take by then, the sweep finds.
type notifier struct {
	queue   queue.Queue
	log     *slog.Logger
	waiting chan stored
	ended   chan struct{}

	ctx    context.Context // of all attempts
	cancel context.CancelFunc
}

// stored is an object to tell of.
type stored struct {
	spec   pipeline.Spec
	object pipeline.Object
	until  time.Time
}

func newNotifier(q queue.Queue, log *slog.Logger) *notifier {
	n := &notifier{queue: q, log: log, waiting: make(chan stored, notifyWaiting), ended: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// add never blocks.
func (n *notifier) add(spec pipeline.Spec, o pipeline.Object) {
	s := stored{spec, o, time.Now().Add(notifyFor)}
	select {
	case n.waiting <- s:
	default:
		n.giveUp(s, "too many wait for the queue")
	}
}

func (n *notifier) giveUp(s stored, why any) {
	n.log.Warn("notification not enqueued; the sweep will find the object", "pipeline", s.spec.Name, "key", s.object.Key,
		"error", why)
}

// run ends after stop.
func (n *notifier) run() {
	defer close(n.ended)
	backoff := retry.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	for s := range n.waiting {
		for attempt := 1; ; attempt++ {
			err := n.enqueue(s)
			if err == nil {
				break
			}
			if time.Now().After(s.until) || retry.Sleep(n.ctx, backoff.Delay(attempt)) != nil {
				n.giveUp(s, err)
				break
			}
		}
	}
}

func (n *notifier) enqueue(s stored) error {
	ctx, cancel := context.WithTimeout(n.ctx, notifyWait)
	defer cancel()
	o := s.object
	_, err := n.queue.Enqueue(ctx, s.spec, pipeline.Notification{Key: o.Key, ETag: o.ETag, Size: o.Size}, false)
	return err
}

// stop gives what waits a last chance. Nothing is added any more.
func (n *notifier) stop() {
	timer := time.AfterFunc(notifyDrain, n.cancel)
	defer timer.Stop()
	defer n.cancel()
	close(n.waiting)
	<-n.ended
}
