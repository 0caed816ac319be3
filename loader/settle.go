package loader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
)

// handle loads what a delivery names and settles it.
func (l *Loader) handle(ctx context.Context, d Delivery) {
	notifications, err := queue.Parse(d.Body())
	if err != nil {
		// It will never say more than it does now, and the sweep finds its object.
		reason := "unparsable"
		if errors.Is(err, queue.ErrTest) {
			reason = "test"
		} else {
			l.log.Warn("notification cannot be read", "error", err, "body", string(d.Body()[:min(len(d.Body()), 300)]))
		}
		l.metrics.ignored.WithLabelValues(reason).Inc()
		l.settle(ctx, d, "")
		return
	}
	stop := l.extend(ctx, d)
	defer stop()
	for _, n := range notifications {
		if entry, err := l.load(ctx, n); err != nil && !l.failed(ctx, d, n, entry, err) {
			return
		}
	}
	stop()
	l.settle(ctx, d, notifications[0].Key)
}

// codedError is a failure that is the loader's own to name.
type codedError struct {
	code  string
	final bool // no later attempt can do better: the object is given up at once
	error
}

func (e codedError) Unwrap() error { return e.error }

// fault is an object's own failure, with a code for machines.
func fault(code, format string, args ...any) error {
	return codedError{code: code, error: retry.As(retry.Permanent, fmt.Errorf(format, args...))}
}

// faultFinal is a fault that no later attempt can change.
func faultFinal(code, format string, args ...any) error {
	return codedError{code: code, final: true, error: retry.As(retry.Permanent, fmt.Errorf(format, args...))}
}

// isFinal tells whether an object is to be given up at once.
func isFinal(err error) bool {
	c, ok := errors.AsType[codedError](err)
	return ok && c.final
}

// codeOf names a failure for machines.
func codeOf(err error) string {
	if c, ok := errors.AsType[codedError](err); ok {
		return c.code
	}
	switch {
	case retry.ClassOf(err) == retry.Outage:
		return "outage"
	case retry.CodeOf(err) != 0:
		return "insert_refused"
	}
	return "load_failed"
}

// failed gives a delivery back, or tells that it is to be settled, since its
// object was given up. Only what is the object's own fault counts.
func (l *Loader) failed(ctx context.Context, d Delivery, n pipeline.Notification, entry pipeline.Load, err error) (settle bool) {
	if ctx.Err() != nil {
		l.ended(ctx, n.Key)
		d.Nak(0) // cut off by the drain: another loader can begin at once
		return false
	}
	l.metrics.results.WithLabelValues("failed").Inc()
	delay := l.opts.Backoff.Delay(d.Attempt())
	if retry.ClassOf(err) != retry.Outage {
		l.metrics.failures.Inc()
		var dead bool
		if dead, entry, err = l.count(ctx, entry, err); err == nil {
			if dead {
				return true
			}
			delay = l.opts.Backoff.Delay(int(entry.Failures))
			l.log.Error("load failed; trying again", "key", n.Key, "failures", entry.Failures, "of", l.opts.Attempts, "wait", delay.Round(time.Millisecond), "error", entry.Error)
		}
	} else {
		l.tell(entry, err)
	}
	if retry.ClassOf(err) == retry.Outage {
		l.ended(ctx, n.Key)
		l.setBroken(err)
	}
	if err := d.Nak(delay); err != nil {
		l.log.Warn("nak failed; it will be delivered again", "key", n.Key, "error", err)
	}
	return false
}

// count writes a failure into the ledger. After the last attempt that the
// object has it becomes a dead letter.
func (l *Loader) count(ctx context.Context, entry pipeline.Load, cause error) (dead bool, _ pipeline.Load, err error) {
	now := time.Now().UTC()
	entry.State, entry.Code, entry.Error, entry.Finished = pipeline.Failed, codeOf(cause), cause.Error(), now
	entry.Failures++
	if entry.Code != "killed_loader" { // of which a redrive is made alone, too
		entry.Unfinished = 0
	}
	if entry.FirstFail.IsZero() || entry.Failures == 1 {
		entry.FirstFail = now
	}
	if int(entry.Failures) >= l.opts.Attempts || isFinal(cause) {
		entry.State = pipeline.Dead
	}
	if err := l.ledger.SaveLoad(ctx, entry); err != nil {
		return false, entry, err
	}
	l.tell(entry, cause)
	if entry.State != pipeline.Dead {
		return false, entry, nil
	}
	// Another loader may have brought it in; then the ledger says so.
	if now, ok, err := l.ledger.Load(ctx, entry.Key); err != nil || ok && now.State != pipeline.Dead {
		return false, entry, err
	}
	return true, entry, l.bury(ctx, entry)
}

// bury makes the dead letter of an object that the ledger calls dead. It may
// be called again: a letter is there once.
func (l *Loader) bury(ctx context.Context, entry pipeline.Load) error {
	if l.letters != nil {
		if err := l.letters.DeadLetter(ctx, entry.DeadLetter()); err != nil {
			return err
		}
	}
	l.metrics.results.WithLabelValues("dead").Inc()
	l.log.Error("object given up: it is a dead letter until `penstock dlq redrive` or `drop`", "key", entry.Key, "failures", entry.Failures, "code", entry.Code, "reason", entry.Error)
	return nil
}

// tell reports a failed attempt. The errors pipeline gets it when it can.
func (l *Loader) tell(entry pipeline.Load, err error) {
	if l.report == nil {
		return
	}
	l.report.Report(pipeline.Failure{Time: time.Now().UTC(), Stage: "loader", Code: codeOf(err), Message: err.Error(), Index: -1,
		Object: entry.Key, Row: -1, Attempt: int(entry.Attempts), ServerCode: retry.CodeOf(err), Class: retry.ClassOf(err).String(), Loader: l.opts.Name})
}

func (l *Loader) settle(ctx context.Context, d Delivery, key string) {
	if err := d.Ack(ctx); err != nil {
		l.log.Warn("ack failed; it will be delivered again", "key", key, "error", err)
	}
}

// extend tells the queue at intervals that the delivery is being worked on,
// until the returned function is called.
func (l *Loader) extend(ctx context.Context, d Delivery) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for retry.Sleep(ctx, l.opts.Extend) == nil {
			if err := d.Extend(); err != nil {
				l.log.Warn("extend failed", "error", err)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}
