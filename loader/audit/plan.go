package audit

import (
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

// Plan decides what a re-ingest does with objects. Without a Job it skips what is
// loaded; with one it replaces the rows of each loaded object once.
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
}

// Decide says what is to be done with objects of one pipeline, in the order of
// their keys: present are those that the table has rows of.
func (p Plan) Decide(objects []pipeline.Object, entries map[string]pipeline.Load, present map[string]bool) []Item {
	items := make([]Item, len(objects))
	for i, o := range objects {
		e, known := entries[o.Key]
		items[i] = Item{Object: o, Entry: e}
		switch {
		case known && e.State == pipeline.Dropped && !p.ByKey:
			items[i].Action = ActionDropped
		case p.Job != "" && e.State == pipeline.Loaded && e.Job == p.Job:
			items[i].Action = ActionDone
		case e.State == pipeline.Loaded && !present[o.Key] && e.Rows > 0 && e.Received.Before(p.Expired.Received):
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
	}
	return items
}
