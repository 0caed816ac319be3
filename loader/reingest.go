package loader

import (
	"context"
	"fmt"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader/audit"
)

// Reingest does with an object what a plan decided. job names the run that replaces rows.
//
// While rows are replaced, they are never missing, and readers with FINAL never see them twice. First the next
// generation is inserted, then the older ones are deleted. If that is interrupted, the ledger has the generation. Any
// loader that gets the object finishes the work: in this run again, or after a sweep.
//
// A failure that is the object's own fault counts in the ledger, as for a delivery.
func (l *Loader) Reingest(ctx context.Context, item audit.Item, job string) (entry pipeline.Load, err error) {
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
	// Without an ETag: load the object's current content. Read the ledger again too, because the item may have waited.
	a := &attempt{Loader: l, notified: pipeline.Notification{Key: item.Object.Key}}
	ctx, span := l.traceAttempt(ctx, item.Object.Key, "reingest", string(item.Action), "job", job)
	defer func() { a.endSpan(span, err) }()
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
