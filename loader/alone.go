package loader

import (
	"context"
	"errors"

	"golang.org/x/sync/semaphore"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
)

// Isolation loads a suspicious object while this process loads nothing else. An object whose attempts never end may
// have killed its loaders. It must not stop other loads, and a separate process can have a memory limit.
type Isolation struct {
	turns *semaphore.Weighted
	run   func(context.Context, pipeline.Spec, pipeline.Notification) error
}

// wholeProcess is the weight of a load that excludes all others.
const wholeProcess = 1 << 30

// ErrKilled means that the process was killed before it reported a verdict.
var ErrKilled = errors.New("the process that loaded the object alone was killed")

// NewIsolation returns an Isolation, which all loaders of a process share. run lets another process load an object by
// Loader.Alone, and returns its verdict or ErrKilled. If run is nil, this process loads the object.
func NewIsolation(run func(context.Context, pipeline.Spec, pipeline.Notification) error) *Isolation {
	return &Isolation{semaphore.NewWeighted(wholeProcess), run}
}

// enter waits for capacity for a load of that weight.
func (i *Isolation) enter(ctx context.Context, weight int64) (leave func(), err error) {
	if err := i.turns.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return func() { i.turns.Release(weight) }, nil
}

// isolate loads the object while this process loads no other.
func (a *attempt) isolate(ctx context.Context) error {
	leave, err := a.opts.Isolation.enter(ctx, wholeProcess)
	if err != nil {
		return err
	}
	defer leave()
	a.log.Warn("loading an object alone: earlier attempts never ended", "key", a.entry.Key, "unfinished",
		a.entry.Unfinished)
	if a.opts.Isolation.run == nil {
		return a.run(ctx)
	}
	// This attempt counts too if it ends together with this process.
	a.start()
	if err := a.parts.Ledger.SaveLoad(ctx, a.entry); err != nil {
		return err
	}
	verdict := a.opts.Isolation.run(ctx, a.spec, a.notified)
	entry, known, err := a.parts.Ledger.Load(ctx, a.entry.Key)
	if err != nil {
		return err
	}
	if known {
		a.entry = entry
	}
	switch {
	case errors.Is(verdict, ErrKilled):
		return faultFinal(codeKilledLoader, "load %s: after %s that never ended, %w",
			a.entry.Key, show.Plural(int(a.entry.Unfinished), "attempt"), verdict)
	case verdict == nil:
		a.count(int64(a.entry.Rows), a.entry.Received.UnixMilli())
	}
	return verdict
}

// Verdict is the result of Loader.Alone as JSON, for the parent process.
type Verdict struct {
	Error      string `json:"error,omitempty"` // empty: loaded
	Code       string `json:"code,omitempty"`
	ServerCode int    `json:"server_code,omitempty"`
	Class      string `json:"class,omitempty"`
	Final      bool   `json:"final,omitempty"`
}

// VerdictOf returns the verdict for Alone's error.
func VerdictOf(err error) Verdict {
	if err == nil {
		return Verdict{}
	}
	return Verdict{Error: err.Error(), Code: codeOf(err), ServerCode: retry.CodeOf(err),
		Class: retry.ClassOf(err).String(), Final: isFinal(err)}
}

// Err returns the other process's error; nil: the object is loaded.
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
