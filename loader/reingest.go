package loader

import (
	"context"
	"fmt"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader/audit"
)

// Reingest carries out what a plan decided about an object. job names the run that
// replaces rows.
//
// Rows are replaced without a moment in which they are gone or, for readers with
// FINAL, double: those of the next generation come in, then the older ones are
// deleted. If that is cut off anywhere, the ledger has the generation, and any
// loader that gets the object, by this run again or by a sweep, ends the work.
//
// A failure through the object's own fault counts in the ledger, like that of a
// delivery.
func (l *Loader) Reingest(ctx context.Context, item audit.Item, job string) (pipeline.Load, error) {
	var ev event
	switch item.Action {
	case audit.ActionLoad:
		ev = requested
	case audit.ActionAgain:
		ev = missed
	case audit.ActionReplace:
		ev = replaced
	default:
		return item.Entry, nil
	}
	// Without an ETag: the object as it is now. The ledger is read anew as well, for
	// the item may have waited for its turn.
	a := &attempt{Loader: l, notified: pipeline.Notification{Key: item.Object.Key}}
	do, err := a.open(ctx, happening{event: ev, job: job})
	if err != nil || do == leave {
		return a.entry, err
	}
	if a.entry.ChunkRows == 0 {
		a.entry.ETag = item.Object.ETag
	}
	if do == reload {
		if err := a.parts.Ledger.SaveLoad(ctx, a.entry); err != nil {
			return a.entry, err
		}
	}
	err = a.make(ctx)
	if err == nil {
		return a.entry, nil
	}
	if ctx.Err() == nil && retry.ClassOf(err) != retry.Outage {
		if _, failed := a.fail(ctx, err); failed != nil {
			a.log.Error("the failure of a re-ingest was not recorded", "key", a.entry.Key, "error", failed)
		}
	}
	return a.entry, fmt.Errorf("re-ingest: %w", err)
}
