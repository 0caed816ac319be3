package audit

import (
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Action is what a re-ingest does with an object.
type Action string

// The actions.
const (
	ActionLoad    Action = "load"    // not loaded
	ActionAgain   Action = "again"   // loaded by the ledger, but without rows in the table
	ActionReplace Action = "replace" // loaded, and its rows are to be replaced
	ActionSkip    Action = "skip"    // loaded
	ActionDone    Action = "done"    // already replaced by this job, before it was interrupted
	ActionExpired Action = "expired" // loaded, and the table's TTL has deleted its rows
	ActionDropped Action = "dropped" // dropped by an operator: only naming its key brings it back
)

// Plan decides what a re-ingest does with objects. Without a Job it skips loaded objects. With one it replaces each
// loaded object's rows once.
type Plan struct {
	Job     string          // names the run
	ByKey   bool            // the objects were chosen by key
	Expired pipeline.Expiry // rows that the table's TTL deletes
}

// Item is an object and the decision about it.
type Item struct {
	Object pipeline.Object
	Entry  pipeline.Load // in the ledger; zero: none
	Action Action
	Limit  time.Time // zero, or its rows are older, so the table's TTL deletes them right after loading
}

// newest is the receipt of an object's newest event, or later; zero: unknown.
func (it Item) newest() time.Time {
	switch {
	case !it.Entry.Received.IsZero():
		return it.Entry.Received
	case it.Object.Meta.LastReceived > 0:
		return pipeline.Millis(it.Object.Meta.LastReceived)
	}
	return it.Object.Modified
}

// limit returns the TTL's limit if the object was received before it; zero: it was not. Events happen before they are
// received, except by clocks that are ahead.
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
