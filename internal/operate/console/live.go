package console

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/tap"
)

// events streams live events as server-sent events: "event" has an event, "count" the number of all events, "stored" an
// object with the seqs of its events, "load" what became of an object, and "failed" why the stream ends.
func (c *Console) events(w http.ResponseWriter, r *http.Request, _ *session) {
	op := operate.Find("tail")
	form := only(r.URL.Query(), "project", "name", "user", "session", "accepted", "rejected")
	form.Set("stored", "true")
	params, err := op.Params(form)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	send := func(kind string, v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		// If a browser does not read, its stream ends.
		flush.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, text); err != nil {
			cancel()
			return err
		}
		return nil
	}
	loads := &following{table: c.operator.Table, found: make(chan []pipeline.Load, 1), objects: map[string]followed{}}
	err = op.Stream(ctx, c.operator, params, func(item any) error {
		e := item.(*tap.Event)
		if e.Stored == nil {
			return send("event", e)
		}
		loads.follow(e.Stored.Object)
		return send("stored", e.Stored)
	}, func(p operate.Progress) {
		send("count", p.Text)
		for _, l := range loads.look(ctx) {
			send("load", l)
		}
		flush.Flush()
	})
	if err != nil && ctx.Err() == nil {
		send("failed", err.Error())
		flush.Flush()
	}
}

// load is what became of an object.
type load struct {
	Object string `json:"object"`
	State  string `json:"state"`
	Error  string `json:"error,omitempty"`
}

// Limits of following objects, for each viewer.
const (
	followEvery = time.Second      // between looks into the ledger
	followMost  = 200              // objects at once; beyond it, the one that has waited longest is left out
	followLong  = 15 * time.Minute // an object is followed
)

// following follows objects from the bucket to the table, in the background of one stream.
type following struct {
	table   operate.Table
	found   chan []pipeline.Load // of the look under way
	objects map[string]followed  // by key
	looking bool
	looked  time.Time
}

type followed struct {
	since time.Time
	state string // that was shown; empty: none
}

func (f *following) follow(key string) {
	now := time.Now()
	for k, o := range f.objects {
		if now.Sub(o.since) > followLong {
			delete(f.objects, k)
		}
	}
	if len(f.objects) >= followMost {
		oldest, at := "", now
		for k, o := range f.objects {
			if !o.since.After(at) {
				oldest, at = k, o.since
			}
		}
		delete(f.objects, oldest)
	}
	f.objects[key] = followed{since: now}
}

// look returns what is new of followed objects. It never waits: a look into the ledger goes on beside it.
func (f *following) look(ctx context.Context) (changed []load) {
	select {
	case all := <-f.found:
		f.looking = false
		changed = f.compare(all)
	default:
	}
	if f.looking || len(f.objects) == 0 || time.Since(f.looked) < followEvery {
		return changed
	}
	f.looking, f.looked = true, time.Now()
	keys := slices.Sorted(maps.Keys(f.objects))
	go func() {
		var all []pipeline.Load
		// Keys begin with a time, so few others are between these. If ClickHouse is away, the next look asks again.
		f.table.Loads(ctx, keys[0], keys[len(keys)-1], func(l pipeline.Load) error { all = append(all, l); return nil })
		f.found <- all
	}()
	return changed
}

func (f *following) compare(all []pipeline.Load) (changed []load) {
	for _, l := range all {
		o, ok := f.objects[l.Key]
		if state := l.State.String(); ok && state != o.state {
			changed = append(changed, load{l.Key, state, l.Error})
			f.objects[l.Key] = followed{o.since, state}
		}
		if l.State == pipeline.Loaded || l.State == pipeline.Dropped {
			delete(f.objects, l.Key)
		}
	}
	return changed
}
