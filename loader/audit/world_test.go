package audit

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// world is a bucket, a ledger and a table in memory. If rows has no entry, a loaded object has the rows of its ledger
// entry, in the partition of the day on which it was stored.
type world struct {
	objects map[string]time.Time // time of storage, by key
	etags   map[string]string    // by key; "e" if missing
	metas   map[string]pipeline.Meta
	states  map[string]pipeline.LoadState
	entries map[string]pipeline.Load    // replace states
	events  map[string][]pipeline.Event // content of objects
	rows    map[string][]uint32         // object_row of the rows in the table
	known   map[pipeline.Identity]bool  // events in the table, of any object
	expired pipeline.Expiry

	pages   int          // listed
	queries int          // queries of the ledger
	heads   atomic.Int32 // requests for single objects
	fail    error        // returned by the page after the next
	failing string       // call that fails from now on
	class   retry.Class  // class of that failure
	until   time.Time    // end of the failures; zero: never
	between func()       // called once, after the first query of the ledger
}

func newWorld() *world {
	return &world{objects: map[string]time.Time{}, etags: map[string]string{}, metas: map[string]pipeline.Meta{},
		states: map[string]pipeline.LoadState{}, entries: map[string]pipeline.Load{},
		events: map[string][]pipeline.Event{}, rows: map[string][]uint32{}, known: map[pipeline.Identity]bool{}}
}

const worldPage = 10

// errFailing is the error of the call that fails.
type errFailing string

func (e errFailing) Error() string { return string(e) + " fails" }

func (w *world) try(call string) error {
	switch {
	case w.failing != call, !w.until.IsZero() && time.Now().After(w.until):
		return nil
	case w.class != retry.Unknown:
		return retry.As(w.class, errFailing(call))
	}
	return errFailing(call)
}

func (w *world) object(key string) pipeline.Object {
	o := pipeline.Object{Key: key, ETag: "e", Size: 1, Modified: w.objects[key], Meta: w.metas[key]}
	if etag := w.etags[key]; etag != "" {
		o.ETag = etag
	}
	return o
}

func (w *world) List(_ context.Context, prefix, after, before string, page func([]pipeline.Object) error) error {
	if err := w.try("list " + prefix); err != nil {
		return err
	}
	var all []pipeline.Object
	for _, key := range slices.Sorted(maps.Keys(w.objects)) {
		if strings.HasPrefix(key, prefix) && key > after && (before == "" || key < before) {
			o := w.object(key)
			o.Meta = pipeline.Meta{} // a listing has no metadata
			if strings.HasPrefix(key, pipeline.BlobPrefix) {
				o.Size = w.metas[key].BlobBytes
			}
			all = append(all, o)
		}
	}
	for i, p := range slices.Collect(slices.Chunk(all, worldPage)) {
		if w.pages++; i == 1 && w.fail != nil {
			err := w.fail
			w.fail = nil
			return err
		}
		if err := page(p); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) Head(_ context.Context, key string) (pipeline.Object, error) {
	w.heads.Add(1)
	if _, ok := w.objects[key]; !ok {
		return pipeline.Object{}, errors.New("no such object")
	}
	return w.object(key), w.try("head")
}

func (w *world) entry(key string) (pipeline.Load, bool) {
	if e, ok := w.entries[key]; ok {
		e.Key = key
		return e, true
	}
	state, ok := w.states[key]
	return pipeline.Load{Key: key, ETag: "e", State: state, Rows: 2, Received: w.objects[key]}, ok
}

func (w *world) Loads(_ context.Context, first, last string, each func(pipeline.Load) error) error {
	if err := w.try("ledger"); err != nil {
		return err
	}
	if w.queries++; w.queries == 2 && w.between != nil {
		w.between()
	}
	keys := slices.Concat(slices.Collect(maps.Keys(w.states)), slices.Collect(maps.Keys(w.entries)))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		if e, ok := w.entry(key); ok && key >= first && key <= last {
			if err := each(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) rowsOf(key string) []uint32 {
	if rows, ok := w.rows[key]; ok {
		return rows
	}
	var rows []uint32
	if e, ok := w.entry(key); ok && e.State == pipeline.Loaded {
		for i := range e.Rows {
			rows = append(rows, uint32(i))
		}
	}
	return rows
}

func (w *world) CountRows(_ context.Context, _, first, last string, day time.Time,
	each func(string, uint64, uint64)) error {
	keys := slices.Concat(slices.Collect(maps.Keys(w.objects)), slices.Collect(maps.Keys(w.rows)))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		rows := w.rowsOf(key)
		stored, there := w.objects[key]
		if key < first || key > last || len(rows) == 0 || there && !stored.Truncate(24*time.Hour).Equal(day) {
			continue
		}
		distinct := slices.Compact(slices.Sorted(slices.Values(rows)))
		each(key, uint64(len(rows)), uint64(len(distinct)))
	}
	return w.try("count")
}

func (w *world) RowsOf(_ context.Context, _, key string, _ time.Time, each func(uint32)) error {
	for _, row := range w.rowsOf(key) {
		each(row)
	}
	return w.try("rows")
}

func (w *world) Known(_ context.Context, _ string, events []pipeline.Identity) (n uint64, err error) {
	for _, e := range events {
		if w.known[e] {
			n++
		}
	}
	return n, w.try("known")
}

func (w *world) Objects(_ context.Context, _, first, last string) (map[string]bool, error) {
	present := map[string]bool{}
	for key := range w.objects {
		if key >= first && key <= last && len(w.rowsOf(key)) > 0 {
			present[key] = true
		}
	}
	return present, w.try("objects")
}

func (w *world) Expired(context.Context, string) (pipeline.Expiry, error) {
	return w.expired, w.try("expired")
}

func (w *world) Read(_ context.Context, key string, each func(*pipeline.Event) error) (pipeline.Object, error) {
	for i := range w.events[key] {
		if err := each(&w.events[key][i]); err != nil {
			return w.object(key), err
		}
	}
	return w.object(key), w.try("read")
}

// verify audits the world's events in a time range.
func (w *world) verify(ctx context.Context, from, to time.Time) (Verified, error) {
	return Verify(ctx, pipeline.Events, VerifyOptions{Span: Span{from, to}, Bucket: w, Source: w, Ledger: w, Table: w})
}
