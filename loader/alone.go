package loader

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Isolation loads a suspicious object while this process loads nothing else.
// An object whose attempts never end has perhaps killed its loaders: it must not
// take the objects beside it down, and a process of its own has a memory limit.
type Isolation struct {
	turns *semaphore.Weighted
	run   func(context.Context, pipeline.Spec, pipeline.Notification) error
}

// wholeProcess is the weight of a load that excludes all others.
const wholeProcess = 1 << 30

// ErrKilled is the error of a process that ended without a verdict.
var ErrKilled = errors.New("the process that loaded the object alone was killed")

// NewIsolation makes one for all loaders of a process. run loads an object in
// another process, with Loader.Alone, and returns its verdict, or ErrKilled. If it
// is nil, the object is loaded in this process.
func NewIsolation(run func(context.Context, pipeline.Spec, pipeline.Notification) error) *Isolation {
	return &Isolation{semaphore.NewWeighted(wholeProcess), run}
}

// enter waits for a turn of a weight.
func (i *Isolation) enter(ctx context.Context, weight int64) (leave func(), err error) {
	if err := i.turns.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return func() { i.turns.Release(weight) }, nil
}

// attempt is one at an object that is not loaded. If too many attempts before it
// never ended, it is made alone.
func (l *Loader) attempt(ctx context.Context, n pipeline.Notification, entry pipeline.Load,
	begun bool) (pipeline.Load, error) {
	if begun && entry.State == pipeline.Loading && entry.Finished.IsZero() {
		entry.Unfinished++
		l.metrics.unfinished.Inc()
	}
	if int(entry.Unfinished) >= l.opts.Unfinished {
		return l.alone(ctx, n, entry, begun)
	}
	leave, err := l.opts.Isolation.enter(ctx, 1)
	if err != nil {
		return entry, err
	}
	defer leave()
	return l.bring(ctx, n, entry, begun)
}

// alone loads an object while this process loads no other.
func (l *Loader) alone(ctx context.Context, n pipeline.Notification, entry pipeline.Load,
	begun bool) (pipeline.Load, error) {
	leave, err := l.opts.Isolation.enter(ctx, wholeProcess)
	if err != nil {
		return entry, err
	}
	defer leave()
	l.log.Warn("loading an object alone: earlier attempts never ended", "key", n.Key, "unfinished", entry.Unfinished)
	if l.opts.Isolation.run == nil {
		return l.bring(ctx, n, entry, begun)
	}
	// This attempt counts too, if it ends with this process.
	if err := l.begin(ctx, &entry); err != nil {
		return entry, err
	}
	failed := l.opts.Isolation.run(ctx, l.spec, n)
	now, ok, err := l.ledger.Load(ctx, n.Key)
	if err != nil {
		return entry, err
	}
	if ok {
		entry = now
	}
	if errors.Is(failed, ErrKilled) {
		failed = faultFinal("killed_loader", "load %s: after %d attempts that never ended, %w",
			n.Key, entry.Unfinished, failed)
	} else if failed == nil {
		l.mu.Lock()
		l.stats.Objects, l.stats.Rows, l.trips = l.stats.Objects+1, l.stats.Rows+int64(entry.Rows), 0
		l.mu.Unlock()
		l.metrics.results.WithLabelValues("loaded").Inc()
		l.metrics.rows.Add(float64(entry.Rows))
	}
	return entry, failed
}

// begin writes into the ledger that an attempt begins.
func (l *Loader) begin(ctx context.Context, entry *pipeline.Load) error {
	entry.State, entry.Loader, entry.Started, entry.Finished = pipeline.Loading, l.opts.Name, time.Now().UTC(), time.Time{}
	entry.Attempts++
	return l.ledger.SaveLoad(ctx, *entry)
}

// Alone loads one object, as the process that an Isolation runs. The attempts
// before it do not matter to it.
func (l *Loader) Alone(ctx context.Context, n pipeline.Notification) error {
	_, err := l.loadBy(ctx, n, l.bring)
	return err
}

// endedWait bounds how long it takes to write down that an attempt ended.
const endedWait = 2 * time.Second

// ended writes into the ledger that an attempt ended which is nobody's fault: it
// was cut off by a drain or by an outage. If that fails, the next attempt
// takes the loader for killed, which does no harm to a good object.
func (l *Loader) ended(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endedWait)
	defer cancel()
	entry, ok, err := l.ledger.Load(ctx, key)
	if err != nil || !ok || entry.State != pipeline.Loading || entry.Loader != l.opts.Name || !entry.Finished.IsZero() {
		return
	}
	entry.Unfinished, entry.Finished = 0, time.Now().UTC()
	if err := l.ledger.SaveLoad(ctx, entry); err != nil {
		l.log.Debug("the end of an attempt was not recorded", "key", key, "error", err)
	}
}

// Verdict is what became of an object in another process, to be sent as JSON.
type Verdict struct {
	Error      string `json:"error,omitempty"` // empty: it is loaded
	Code       string `json:"code,omitempty"`
	ServerCode int    `json:"server_code,omitempty"`
	Class      string `json:"class,omitempty"`
	Final      bool   `json:"final,omitempty"`
}

// VerdictOf says what Alone returned.
func VerdictOf(err error) Verdict {
	if err == nil {
		return Verdict{}
	}
	return Verdict{Error: err.Error(), Code: codeOf(err), ServerCode: retry.CodeOf(err),
		Class: retry.ClassOf(err).String(), Final: isFinal(err)}
}

// Err is the error that the other process met.
func (v Verdict) Err() error {
	if v.Error == "" {
		return nil
	}
	for _, class := range []retry.Class{retry.Unknown, retry.Permanent, retry.Outage} {
		if class.String() == v.Class {
			return codedError{code: v.Code, final: v.Final, error: retry.AsCode(class, v.ServerCode, errors.New(v.Error))}
		}
	}
	return codedError{code: v.Code, final: v.Final, error: errors.New(v.Error)}
}
