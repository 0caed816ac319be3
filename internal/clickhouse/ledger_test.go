package clickhouse

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
)

// saveLoad writes an entry with all fields, changed by change, and returns it.
func saveLoad(t *testing.T, db *DB, change func(*pipeline.Load)) pipeline.Load {
	t.Helper()
	at := time.UnixMilli(noon).UTC()
	l := pipeline.Load{Key: "k", ETag: "e", Pipeline: "events", Rows: 3, Bytes: 9, Refused: []uint32{4, 7}, ChunkRows: 10,
		ChunkBytes: 11, Attempts: 1, Failures: 1, Unfinished: 2, Code: "c", Error: "e", FirstFail: at, Job: "j", Loader: "a",
		Reading: "r", Received: at, Started: at, Finished: at}
	if change != nil {
		change(&l)
	}
	if err := db.SaveLoad(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLedgerKeepsTheFurthest(t *testing.T) {
	db, _, _ := open(t)
	if _, ok, err := db.Load(t.Context(), "k"); ok || err != nil {
		t.Fatalf("an empty ledger: %v, %v", ok, err)
	}
	load := func() pipeline.Load {
		t.Helper()
		got, ok, err := db.Load(t.Context(), "k")
		if !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
		return got
	}
	if diff := cmp.Diff(saveLoad(t, db, nil), load()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	saveLoad(t, db, func(n *pipeline.Load) { n.Attempts = 2 })
	saveLoad(t, db, func(n *pipeline.Load) { n.Attempts = 1 })
	if got := load(); got.Attempts != 2 {
		t.Errorf("attempts %d, want 2", got.Attempts)
	}
	saveLoad(t, db, func(n *pipeline.Load) { n.State = pipeline.Loaded })
	saveLoad(t, db, func(n *pipeline.Load) { n.Attempts = 7 })
	if got := load(); got.State != pipeline.Loaded {
		t.Error("a late `loading` hides `loaded`")
	}
	saveLoad(t, db, func(n *pipeline.Load) { n.Generation = 1 })
	if got := load(); got.State == pipeline.Loaded || got.Generation != 1 {
		t.Errorf("a new generation: %+v", got)
	}
}

// An entry without optional fields reads as it was written.
func TestLedgerOfFewFields(t *testing.T) {
	db, _, _ := open(t)
	at := time.UnixMilli(noon).UTC()
	want := saveLoad(t, db, func(l *pipeline.Load) {
		*l = pipeline.Load{Key: "few", ETag: "e", Pipeline: "events", Attempts: 1, Received: at, Started: at}
	})
	want.Refused = []uint32{}
	got, ok, err := db.Load(t.Context(), "few")
	if diff := cmp.Diff(want, got); diff != "" || !ok || err != nil {
		t.Errorf("ok %v, error %v, -want +got\n%s", ok, err, diff)
	}
}

func TestLedgerLists(t *testing.T) {
	db, _, _ := open(t)
	for _, e := range []struct {
		key, pipeline string
		state         pipeline.LoadState
	}{{"a", "events", pipeline.Loaded}, {"b", "events", pipeline.Dead}, {"c", "errors", pipeline.Dead},
		{"d", "events", pipeline.Failed}} {
		saveLoad(t, db, func(l *pipeline.Load) { l.Key, l.Pipeline, l.State, l.Refused = e.key, e.pipeline, e.state, nil })
	}
	var got []string
	add := func(l pipeline.Load) error {
		got = append(got, l.Key)
		return nil
	}
	for _, tt := range []struct {
		name string
		list func() error
		want []string
	}{
		{"Loads", func() error { return db.Loads(t.Context(), "b", "c", add) }, []string{"b", "c"}},
		{"Dead", func() error { return db.Dead(t.Context(), "events", add) }, []string{"b"}},
		{"Failing", func() error { return db.Failing(t.Context(), "events", add) }, []string{"d"}},
	} {
		got = nil
		if err := tt.list(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
	}
	all, err := db.TableStatus(t.Context())
	want := TableStatus{Objects: 1, Loading: 1, Failing: 1, Dead: 1, Newest: noon, Settled: noon}
	if diff := cmp.Diff(want, all["events"]); diff != "" || err != nil {
		t.Errorf("TableStatus: %v, -want +got\n%s", err, diff)
	}
}
