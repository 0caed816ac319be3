package audit

import (
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

// Plan decides what a re-ingest does with objects. Without a Job it skips loaded objects; with one it replaces the rows
// of each loaded object once.
type Plan struct {
	Job     string          // names the run
	ByKey   bool            // the objects were named, each by its key
	Expired pipeline.Expiry // what the table's TTL deletes
}

// Item is an object and what becomes of it.
type Item struct {
	Object pipeline.Object
	Entry  pipeline.Load // of the ledger; zero if it has none
	Action Action
	Limit  time.Time // zero, or its rows are older: the table's TTL deletes them as soon as they are loaded
}

// newest is no earlier than the receipt of an object's newest event; zero: unknown.
func (it Item) newest() time.Time {
	switch {
	case !it.Entry.Received.IsZero():
		return it.Entry.Received
	case it.Object.Meta.LastReceived > 0:
		return pipeline.Millis(it.Object.Meta.LastReceived)
	}
	return it.Object.Modified
}

// limit is the time before which the table's TTL deletes an object's rows, if it was received before that. Then its
// events have happened earlier, too, but for those of clocks that are ahead.
func (p Plan) limit(it Item) time.Time {
	limit := p.Expired.Received
	if p.Expired.Time.After(limit) {
		limit = p.Expired.Time
	}
	if newest := it.newest(); newest.IsZero() || !newest.Before(limit) {
		return time.Time{}
	}
	return limit
}

// Decide decides about objects of one pipeline, in the order of their keys. present are those with rows in the table.
func (p Plan) Decide(objects []pipeline.Object, entries map[string]pipeline.Load, present map[string]bool) []Item {
	items := make([]Item, len(objects))
	for i, o := range objects {
		e, known := entries[o.Key]
		items[i] = Item{Object: o, Entry: e}
		limit := p.limit(items[i])
		switch {
		case known && e.State == pipeline.Dropped && !p.ByKey:
			items[i].Action = ActionDropped
		case p.Job != "" && e.State == pipeline.Loaded && e.Job == p.Job:
			items[i].Action = ActionDone
		case e.State == pipeline.Loaded && !present[o.Key] && e.Rows > 0 && !limit.IsZero():
			items[i].Action = ActionExpired
		case p.Job != "" && (known || present[o.Key]):
			items[i].Action = ActionReplace
		case e.State != pipeline.Loaded || !known:
			items[i].Action = ActionLoad
		case !present[o.Key] && e.Rows > 0:
			items[i].Action = ActionAgain
		default:
			items[i].Action = ActionSkip
		}
		switch items[i].Action {
		case ActionLoad, ActionAgain, ActionReplace:
			items[i].Limit = limit
		}
	}
	return items
}
