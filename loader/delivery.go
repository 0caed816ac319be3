package loader

import (
	"context"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// handle loads the objects of a delivery and settles it.
func (l *Loader) handle(ctx context.Context, d pipeline.Delivery) {
	notifications, err := d.Notifications()
	if err != nil {
		// The message will never be readable. The sweep finds its object.
		l.log.Warn("notification cannot be read", "error", err)
		l.metrics.ignored.WithLabelValues("unparsable").Inc()
	} else if len(notifications) == 0 {
		l.metrics.ignored.WithLabelValues("test").Inc()
	}
	stop := l.extend(ctx, d)
	defer stop()
	for _, n := range notifications {
		if again, wait := l.attempt(ctx, n, d.Attempt()); again {
			if err := d.Nak(wait); err != nil {
				l.log.Warn("nak failed; the notification comes again later", "key", n.Key, "error", err)
			}
			return
		}
	}
	stop()
	if err := d.Ack(ctx); err != nil {
		l.log.Warn("ack failed; the notification comes again", "notifications", notifications, "error", err)
	}
}

// attempt makes an attempt to load the object of a notification, and returns when to try again. delivered counts the
// deliveries of the notification.
func (l *Loader) attempt(ctx context.Context, n pipeline.Notification, delivered int) (again bool, wait time.Duration) {
	ctx, span := l.traceAttempt(ctx, n.Key, "delivery", delivered)
	a, err := l.load(ctx, n)
	defer func() { a.endSpan(span, err) }()
	if err == nil {
		return false, 0
	}
	return a.settle(ctx, err, delivered)
}

// extend extends the delivery at intervals, until the returned function is called.
func (l *Loader) extend(ctx context.Context, d pipeline.Delivery) (stop func()) {
	if l.opts.Extend == 0 {
		return func() {}
	}
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

// settle records that the attempt failed, and returns when its delivery should return; never if the object was given
// up. Only the object's own faults count. delivered counts the deliveries of the notification.
func (a *attempt) settle(ctx context.Context, cause error, delivered int) (again bool, wait time.Duration) {
	if ctx.Err() != nil {
		a.interrupt(ctx)
		return true, 0 // interrupted by the drain: another loader can start at once
	}
	a.metrics.results.WithLabelValues("failed").Inc()
	err := cause
	if retry.ClassOf(cause) == retry.Outage {
		a.tell(cause)
	} else {
		a.metrics.failures.Inc()
		var dead bool
		if dead, err = a.fail(ctx, cause); err == nil {
			wait = a.opts.Backoff.Delay(int(a.entry.Failures))
			if !dead {
				a.log.Error("load failed; trying again", "key", a.entry.Key, "failures", a.entry.Failures,
					"of", a.opts.Attempts, "wait", wait.Round(time.Millisecond), "error", a.entry.Error)
			}
			return !dead, wait
		}
	}
	if retry.ClassOf(err) == retry.Outage {
		a.interrupt(ctx)
		a.setBroken(err)
	}
	return true, a.opts.Backoff.Delay(delivered)
}

// fail records a failure by the object's own fault in the ledger. If it was the last attempt, the object becomes a dead
// letter.
func (a *attempt) fail(ctx context.Context, cause error) (dead bool, err error) {
	if isFinal(cause) && a.content != nil && a.content.stranger() {
		cause = codedError{code: codeOf(cause), error: cause}
	}
	do := a.happens(happening{event: faulted, cause: cause}, true)
	if err := a.parts.Ledger.SaveLoad(ctx, a.entry); err != nil {
		return false, err
	}
	a.tell(cause)
	if do != bury {
		return false, nil
	}
	// Another loader may have loaded it; the ledger says so.
	if now, ok, err := a.parts.Ledger.Load(ctx, a.entry.Key); err != nil || ok && now.State != pipeline.Dead {
		return false, err
	}
	return true, a.bury(ctx, a.entry)
}

// interruptWait limits the time to record that an attempt was interrupted.
const interruptWait = 2 * time.Second

// interrupt notes in the ledger that an outage or a drain ended the attempt. If that fails, the next attempt counts
// this one as killed, which does not harm a good object.
func (a *attempt) interrupt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), interruptWait)
	defer cancel()
	entry, known, err := a.parts.Ledger.Load(ctx, a.notified.Key)
	if err != nil {
		return
	}
	a.entry = entry
	if a.happens(happening{event: interrupted}, known) != save {
		return
	}
	if err := a.parts.Ledger.SaveLoad(ctx, a.entry); err != nil {
		a.log.Debug("the end of an attempt was not recorded", "key", a.entry.Key, "error", err)
	}
}

// bury publishes the dead letter of a dead object. Calling it again is safe: a letter is published once.
func (l *Loader) bury(ctx context.Context, entry pipeline.Load) error {
	if l.parts.Letters != nil {
		if err := l.parts.Letters.DeadLetter(ctx, entry.DeadLetter()); err != nil {
			return err
		}
	}
	l.metrics.results.WithLabelValues("dead").Inc()
	l.log.Error("object given up; it is a dead letter",
		"key", entry.Key, "failures", entry.Failures, "code", entry.Code, "reason", entry.Error)
	return nil
}

// tell reports the failed attempt to the errors pipeline.
func (a *attempt) tell(err error) {
	if a.parts.Report == nil {
		return
	}
	a.parts.Report.Report(pipeline.Failure{Time: time.Now().UTC(), Stage: "loader", Code: codeOf(err),
		Message: err.Error(), Index: -1, Object: a.entry.Key, Row: -1, Attempt: int(a.entry.Attempts),
		ServerCode: retry.CodeOf(err), Class: retry.ClassOf(err).String(), Loader: a.opts.Name})
}
