// Package wallclock checks this machine's clock before events are dated by it. An event dated years off is stored in a
// folder that no sweep looks into.
package wallclock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// MaxOffset is how far the clock may be off the store's. S3 itself refuses requests beyond it.
const MaxOffset = 15 * time.Minute

// built is a date that no correct clock can be before: this source is younger.
var built = time.Date(2026, time.November, 1, 0, 0, 0, 0, time.UTC)

// Intervals between two checks: while all is well, and while events are refused.
const (
	CheckEvery = time.Minute // for Run
	retryEvery = 2 * time.Second
	askFor     = 5 * time.Second
	trustFor   = time.Hour // an offset that was measured says nothing of the clock any more
)

// Watch knows whether the clock can be believed.
type Watch struct {
	offset func(context.Context) (time.Duration, error) // ours less the store's
	now    func() time.Time
	log    *slog.Logger

	mu       sync.Mutex
	newest   time.Time // of what was found on disk
	measured time.Time // by the monotonic clock; zero: never
	wall     time.Time // what this machine's clock said then
	last     time.Duration
	err      error
}

// New makes a watch. offset asks the store; now is time.Now but in tests.
func New(offset func(context.Context) (time.Duration, error), now func() time.Time, log *slog.Logger) *Watch {
	return &Watch{offset: offset, now: now, log: log}
}

// Found tells of the time of a segment that an earlier process left: it is not later than now, if both clocks were
// right.
func (w *Watch) Found(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t.After(w.newest) {
		w.newest = t
	}
}

// Check asks the store, if it answers, and decides. The store's clock counts most: with it a segment from the future
// does not keep a corrected clock out. A store that is away is no reason to refuse.
func (w *Watch) Check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	offset, err := w.offset(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.measured, w.wall, w.last = time.Now(), w.now().Round(0), offset
	}
	was := w.err
	w.err = w.judge()
	switch {
	case w.err != nil && was == nil:
		w.log.Error("events are refused until the clock is right", "error", w.err)
	case w.err == nil && was != nil:
		w.log.Info("the clock is right again")
	}
}

// tooFar returns an error if an offset from the store's clock is beyond MaxOffset.
func tooFar(offset time.Duration) error {
	if offset.Abs() <= MaxOffset {
		return nil
	}
	way := "ahead of"
	if offset < 0 {
		way = "behind"
	}
	return fmt.Errorf("this machine's clock is %s %s the store's; set it right", offset.Abs().Round(time.Second), way)
}

func (w *Watch) judge() error {
	if !w.measured.IsZero() && time.Since(w.measured) < trustFor {
		// The store may be away since then, and the clock may have been set: elapsed time tells by how much.
		set := w.now().Round(0).Sub(w.wall) - time.Since(w.measured)
		return tooFar(w.last + set)
	}
	now := w.now()
	if now.Before(built) {
		return fmt.Errorf("this machine's clock says %s, before this version was built; set it right",
			now.UTC().Format(time.RFC3339))
	}
	if now.Before(w.newest.Add(-MaxOffset)) {
		return fmt.Errorf("this machine's clock says %s, before the newest segment of the write-ahead log (%s); set it right",
			now.UTC().Format(time.RFC3339), w.newest.UTC().Format(time.RFC3339))
	}
	return nil
}

// Err says why events must not be dated by this clock; nil if they may.
func (w *Watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Offset is the last that was measured, 0 if none was.
func (w *Watch) Offset() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Run checks again and again until ctx ends, at intervals of every while all is well.
func (w *Watch) Run(ctx context.Context, every time.Duration) {
	for {
		wait := every
		if w.Err() != nil {
			wait = retryEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			w.Check(ctx)
		}
	}
}
