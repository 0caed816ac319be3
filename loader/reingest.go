package loader

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Action is what a re-ingest does with an object.
type Action string

// The actions.
const (
	ActionLoad    Action = "load"    // it is not loaded
	ActionAgain   Action = "again"   // the ledger calls it loaded, but the table has no row of it
	ActionReplace Action = "replace" // it is loaded, and its rows are to be replaced
	ActionSkip    Action = "skip"    // it is loaded
	ActionDone    Action = "done"    // this job has replaced it already, before it was interrupted
	ActionExpired Action = "expired" // it is loaded, and the table's TTL has deleted its rows
	ActionDropped Action = "dropped" // an operator has dropped it: only its own key brings it back
)

// Reingest is one run over any objects. An empty Job means that loaded objects
// are skipped; else their rows are replaced, once for each name of a job.
type Reingest struct {
	Loader *Loader
	Job    string
	ByKey  bool // the objects were named, each by its key

	Expired time.Time // the table deletes rows of before, by their received_at; zero: none
}

// Item is an object and what becomes of it.
type Item struct {
	Object pipeline.Object
	Entry  pipeline.Load // of the ledger; zero where it has none
	Action Action
}

// Decide says what is to be done with objects of one pipeline, in the order of
// their keys: present are those that the table has rows of.
func (r *Reingest) Decide(objects []pipeline.Object, entries map[string]pipeline.Load, present map[string]bool) []Item {
	items := make([]Item, len(objects))
	for i, o := range objects {
		e, known := entries[o.Key]
		items[i] = Item{Object: o, Entry: e}
		switch {
		case known && e.State == pipeline.Dropped && !r.ByKey:
			items[i].Action = ActionDropped
		case r.Job != "" && e.State == pipeline.Loaded && e.Job == r.Job:
			items[i].Action = ActionDone
		case e.State == pipeline.Loaded && !present[o.Key] && e.Rows > 0 && e.Received.Before(r.Expired):
			items[i].Action = ActionExpired
		case r.Job != "" && (known || present[o.Key]):
			items[i].Action = ActionReplace
		case e.State != pipeline.Loaded || !known:
			items[i].Action = ActionLoad
		case !present[o.Key] && e.Rows > 0:
			items[i].Action = ActionAgain
		default:
			items[i].Action = ActionSkip
		}
	}
	return items
}

// Do carries an item's action out. Rows are replaced without a moment in which
// they are gone or, for who reads with FINAL, double: those of the next
// generation come in, then those before are deleted. Wherever that is cut off,
// the ledger has the generation, and any loader that gets the object, by this
// run again or by a sweep, ends the work.
func (r *Reingest) Do(ctx context.Context, item Item) (pipeline.Load, error) {
	l := r.Loader
	// The ledger as it is now: the item may have waited for its turn.
	entry, known, err := l.ledger.Load(ctx, item.Object.Key)
	if err != nil {
		return entry, err
	}
	if !known {
		entry = pipeline.Load{Key: item.Object.Key, ETag: item.Object.ETag, Pipeline: l.spec.Name}
	}
	switch {
	case slices.Contains([]Action{ActionSkip, ActionDone, ActionDropped, ActionExpired}, item.Action):
		return entry, nil
	case item.Action == ActionLoad && entry.State == pipeline.Loaded:
		return entry, nil // meanwhile
	case item.Action == ActionLoad && known && (entry.State == pipeline.Dead || entry.State == pipeline.Dropped):
		entry.State, entry.Failures = pipeline.Failed, 0
	case item.Action == ActionReplace && entry.Job == r.Job && entry.State != pipeline.Loaded:
		// This job has raised the generation before it was cut off.
		entry.State, entry.Failures = pipeline.Failed, 0
	case item.Action == ActionReplace || item.Action == ActionAgain:
		if !known {
			// A ledger that was lost does not know the generation; the table does.
			if entry.Generation, _, err = l.table.Newest(ctx, l.spec.Name, entry.Key, [2]int64{0, maxTime}); err != nil {
				return entry, err
			}
		}
		entry = pipeline.Load{Key: entry.Key, ETag: item.Object.ETag, Pipeline: l.spec.Name, Generation: entry.Generation + 1, Job: r.Job,
			State: pipeline.Failed, Attempts: entry.Attempts, Unfinished: entry.Unfinished}
		known = true
	}
	if known {
		entry.Attempts++
		if err := l.ledger.SaveLoad(ctx, entry); err != nil {
			return entry, err
		}
	}
	entry, err = l.attempt(ctx, pipeline.Notification{Key: item.Object.Key}, entry, known)
	if err != nil {
		return entry, fmt.Errorf("re-ingest: %w", err)
	}
	return entry, nil
}

// Count writes the failure of an item that Do could not load through the
// object's own fault into the ledger, as the failure of a delivery is. After
// Options.Attempts of them the object is a dead letter.
func (r *Reingest) Count(ctx context.Context, entry pipeline.Load, cause error) error {
	_, _, err := r.Loader.count(ctx, entry, cause)
	return err
}
