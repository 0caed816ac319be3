package clickhouse

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
)

const day = 24 * 3600 * 1000 // ms

// put inserts n rows of an object, received at a time.
func put(t *testing.T, db *DB, object string, generation uint32, n int, at int64) []pipeline.Event {
	t.Helper()
	events := make([]pipeline.Event, n)
	for i := range events {
		events[i] = event(i, `{"v":1}`)
		events[i].Row, events[i].ReceivedAt = uint32(i), at
	}
	if err := insertEvents(t.Context(), db, "events", fmt.Sprint(object, generation, at), object, generation,
		events); err != nil {
		t.Fatal(err)
	}
	return events
}

func TestRowsOfObjects(t *testing.T) {
	db, _, _ := open(t)
	put(t, db, "events/a", 0, 3, noon)
	put(t, db, "events/a", 1, 2, noon)
	put(t, db, "events/b", 0, 1, noon+day)
	put(t, db, "events/c", 0, 1, noon+9*day)
	date := time.UnixMilli(noon).UTC()

	counts := map[string][2]uint64{}
	if err := db.CountRows(t.Context(), "events", "events/a", "events/b", date, func(object string, rows, distinct uint64) {
		counts[object] = [2]uint64{rows, distinct}
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string][2]uint64{"events/a": {5, 3}, "events/b": {1, 1}}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("CountRows: -want +got\n%s", diff)
	}

	for object, want := range map[string]int{"events/a": 3, "events/b": 1, "events/c": 0} { // c is of another day
		got := map[uint32]bool{}
		if err := db.RowsOf(t.Context(), "events", object, date, func(row uint32) { got[row] = true }); err != nil ||
			len(got) != want {
			t.Errorf("RowsOf %s: got %v, %v, want %d rows", object, got, err, want)
		}
	}

	objects, err := db.Objects(t.Context(), "events", "events/b", "events/z")
	if diff := cmp.Diff(map[string]bool{"events/b": true, "events/c": true}, objects); diff != "" || err != nil {
		t.Errorf("Objects: %v, -want +got\n%s", err, diff)
	}

	for _, tt := range []struct {
		object     string
		received   int64
		generation uint32
		exists     bool
	}{{"events/a", noon, 1, true}, {"events/b", noon + day, 0, true}, {"events/c", noon, 0, false}, {"x", noon, 0, false}} {
		generation, exists, err := db.Newest(t.Context(), "events", tt.object, [2]int64{tt.received, tt.received})
		if generation != tt.generation || exists != tt.exists || err != nil {
			t.Errorf("Newest %s: got %d %v, %v, want %d %v", tt.object, generation, exists, err, tt.generation, tt.exists)
		}
	}
}

func TestFind(t *testing.T) {
	db, _, _ := open(t)
	events := put(t, db, "events/a", 0, 3, noon)
	put(t, db, "events/b", 0, 1, noon+day) // a resend of the first
	first := Place{Object: "events/a", EventID: events[0].ID.String(), Table: "events", Project: "p", Name: "n",
		Timestamp: time.UnixMilli(noon).UTC(), ReceivedAt: time.UnixMilli(noon).UTC(), Receiver: "r"}
	again := first
	again.Object, again.ReceivedAt = "events/b", first.ReceivedAt.Add(24*time.Hour)
	last := first
	last.Row, last.Seq, last.EventID = 2, 2, events[2].ID.String()
	for _, tt := range []struct {
		name string
		find func() ([]Place, error)
		want []Place
	}{
		{"an event", func() ([]Place, error) { return db.FindEvent(t.Context(), "events", events[0].ID) }, []Place{first, again}},
		{"no event", func() ([]Place, error) { return db.FindEvent(t.Context(), "events", pipeline.UUID{}) }, nil},
		{"a row", func() ([]Place, error) { return db.FindRow(t.Context(), "events", "events/a", 2) }, []Place{last}},
		{"no row", func() ([]Place, error) { return db.FindRow(t.Context(), "events", "events/a", 3) }, nil},
	} {
		got, err := tt.find()
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, -want +got\n%s", tt.name, err, diff)
		}
	}
}

// Each query of a missing table is an outage that names the query.
func TestQueriesOfAMissingTable(t *testing.T) {
	db, _, _ := open(t)
	for name, ask := range map[string]func() error{
		"CountRows": func() error {
			return db.CountRows(t.Context(), "gone", "a", "b", time.Now(), func(string, uint64, uint64) {})
		},
		"RowsOf":  func() error { return db.RowsOf(t.Context(), "gone", "a", time.Now(), func(uint32) {}) },
		"Objects": func() error { _, err := db.Objects(t.Context(), "gone", "a", "b"); return err },
		"Newest":  func() error { _, _, err := db.Newest(t.Context(), "gone", "a", [2]int64{}); return err },
		"Present": func() error { _, err := db.Present(t.Context(), "gone", pipeline.Rows{Object: "a"}); return err },
		"Known":   func() error { _, err := db.Known(t.Context(), "gone", []pipeline.Identity{{}}); return err },
		"FindRow": func() error { _, err := db.FindRow(t.Context(), "gone", "a", 1); return err },
		"Delete":  func() error { return db.DeleteOlder(t.Context(), "gone", "a", 1) },
		"Run":     func() error { _, err := db.RunStatus(t.Context(), "gone", "r", 0); return err },
		"Try":     func() error { _, err := db.Try(t.Context(), "gone"); return err },
		"Columns": func() error {
			_, _, err := db.AddColumns(t.Context(), "gone", []Column{{"a", "a", "Int64"}})
			return err
		},
	} {
		wantOutage(t, name, ask())
	}
	if got, err := db.Expired(t.Context(), "gone"); got != (pipeline.Expiry{}) || err != nil {
		t.Errorf("Expired: got %v, %v", got, err)
	}
}

func TestPresent(t *testing.T) {
	db, _, _ := open(t)
	insert(t, db, "a", event(1, `{}`), event(2, `{}`)) // rows 0 and 1
	odd := event(3, `{}`)
	odd.Timestamp, odd.Row = pipeline.NoTime, 7
	if err := insertEvents(t.Context(), db, "events", "odd", "events/o", 0, []pipeline.Event{odd}); err != nil {
		t.Fatal(err)
	}
	monday := pipeline.Partition(noon)
	base := pipeline.Rows{Object: "events/o", End: 2, Received: [2]int64{noon, noon + 5}, Partitions: []int64{monday}}
	for name, tt := range map[string]struct {
		change func(r *pipeline.Rows)
		want   []int64
	}{
		"both rows":             {func(*pipeline.Rows) {}, []int64{monday}},
		"of any partition":      {func(r *pipeline.Rows) { r.Partitions = nil }, []int64{monday}},
		"the second":            {func(r *pipeline.Rows) { r.First = 1 }, []int64{monday}},
		"behind them":           {func(r *pipeline.Rows) { r.First, r.End = 2, 7 }, nil},
		"without a time":        {func(r *pipeline.Rows) { r.Partitions, r.End = []int64{0}, 8 }, []int64{0}},
		"of another partition":  {func(r *pipeline.Rows) { r.Partitions = []int64{0} }, nil},
		"of two partitions":     {func(r *pipeline.Rows) { r.Partitions, r.End = []int64{0, monday}, 8 }, []int64{0, monday}},
		"of one of two":         {func(r *pipeline.Rows) { r.Partitions = []int64{0, monday} }, []int64{monday}},
		"of another object":     {func(r *pipeline.Rows) { r.Object = "events/x" }, nil},
		"of another generation": {func(r *pipeline.Rows) { r.Generation = 1 }, nil},
		"received later":        {func(r *pipeline.Rows) { r.Received = [2]int64{noon + 6, noon + day} }, nil},
		"received at this time": {func(r *pipeline.Rows) { r.Received = [2]int64{noon + 5, noon + 5} }, []int64{monday}},
	} {
		rows := base
		tt.change(&rows)
		there, err := db.Present(t.Context(), "events", rows)
		got := slices.Sorted(maps.Keys(there))
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, partitions -want +got\n%s", name, err, diff)
		}
	}
}

// A new generation is inserted beside the old one, which is then deleted.
func TestDeleteOlder(t *testing.T) {
	db, _, _ := open(t)
	setCallColumns(t, db) // a mutation needs them
	put(t, db, "a", 0, 3, noon)
	put(t, db, "a", 0, 2, noon+day)
	put(t, db, "a", 1, 4, noon)
	put(t, db, "b", 0, 5, noon)
	all := [2]int64{0, noon + 10*day}
	if g, there, err := db.Newest(t.Context(), "events", "a", all); g != 1 || !there || err != nil {
		t.Errorf("newest: %d %v %v", g, there, err)
	}
	if g, there, err := db.Newest(t.Context(), "events", "c", all); g != 0 || there || err != nil {
		t.Errorf("newest of nothing: %d %v %v", g, there, err)
	}
	if objects, err := db.Objects(t.Context(), "events", "a", "az"); len(objects) != 1 || !objects["a"] || err != nil {
		t.Errorf("objects: %v %v", objects, err)
	}
	for range 2 { // the second call has nothing to do
		if err := db.DeleteOlder(t.Context(), "events", "a", 1); err != nil {
			t.Fatal(err)
		}
	}
	if got := query[string](t, db,
		"SELECT toString(groupArray((o, g, n))) FROM (SELECT object AS o, generation AS g, count() AS n FROM events GROUP "+
			"BY o, g ORDER BY o, g)"); got != "[('a',1,4),('b',0,5)]" {
		t.Errorf("left: %s", got)
	}
	rows := pipeline.Rows{Object: "a", End: 100, Received: all}
	if there, err := db.Present(t.Context(), "events", rows); len(there) > 0 || err != nil {
		t.Errorf("generation 0 is still there: %v", err)
	}
}

// Clients reuse one id with several names and times: these are several events.
func TestKnown(t *testing.T) {
	db, _, _ := open(t)
	base := event(1, `{}`)
	insert(t, db, "x", base)
	ask := []pipeline.Identity{base.Identity()}
	for _, change := range []func(*pipeline.Event){
		func(e *pipeline.Event) { e.Name = []byte("other") },
		func(e *pipeline.Event) { e.Project = []byte("other") },
		func(e *pipeline.Event) { e.Timestamp++ },
		func(e *pipeline.Event) { e.Timestamp = pipeline.NoTime },
		func(e *pipeline.Event) { e.ID[0]++ },
	} {
		e := base
		change(&e)
		ask = append(ask, e.Identity())
	}
	if n, err := db.Known(t.Context(), "events", ask); n != 1 || err != nil {
		t.Errorf("%d of them are known, %v, want 1", n, err)
	}
	if n, err := db.Known(t.Context(), "events", []pipeline.Identity{ask[0], ask[0]}); n != 2 || err != nil {
		t.Errorf("asked twice: %d, %v", n, err)
	}
}
