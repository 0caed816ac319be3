package clickhouse

import (
	"context"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/pipeline"
)

// An event that is received on two days is one row of the view, also for a
// profile with which FINAL does not look beyond a day.
func TestOnceOverDays(t *testing.T) {
	db, _, _ := open(t)
	const day = 24 * 3600 * 1000
	e := event(1, `{"level":1}`)
	for i := range 3 {
		if err := insertEvents(t.Context(), db, "events", string(rune('a'+i)), string(rune('a'+i)), 0,
			[]pipeline.Event{e}); err != nil {
			t.Fatal(err)
		}
		e.ReceivedAt += day
	}
	if err := db.conn.Exec(t.Context(), "OPTIMIZE TABLE events FINAL"); err != nil {
		t.Fatal(err)
	}
	profile := clickhouse.Context(t.Context(),
		clickhouse.WithSettings(clickhouse.Settings{"do_not_merge_across_partitions_select_final": 1}))
	for _, c := range []struct {
		ctx  context.Context
		from string
		want uint64
	}{
		{t.Context(), "events", 3}, // this is what the view is for
		{t.Context(), "events FINAL", 1},
		{profile, "events FINAL", 3},
		{t.Context(), "events_once", 1},
		{profile, "events_once", 1},
		{profile, "(SELECT * FROM events_once WHERE name = 'n' OR 1)", 1},
	} {
		var n uint64
		if err := db.conn.QueryRow(c.ctx, "SELECT count() FROM "+c.from).Scan(&n); err != nil || n != c.want {
			t.Errorf("%d rows of %s, want %d, %v", n, c.from, c.want, err)
		}
	}
}

// The view has the columns of properties that setup adds later, and goes on without one that is dropped.
func TestOnceHasAddedColumns(t *testing.T) {
	db, _, _ := open(t)
	insert(t, db, "before", event(0, `{"level":7}`))
	if changed, err := db.RefreshView(t.Context(), "events"); changed || err != nil {
		t.Errorf("nothing was added: changed %t, %v", changed, err)
	}
	if _, err := db.AddColumns(t.Context(), "events", []Column{{"level", "level", "Int64"}}); err != nil {
		t.Fatal(err)
	}
	if changed, err := db.RefreshView(t.Context(), "events"); !changed || err != nil {
		t.Errorf("a column was added: changed %t, %v", changed, err)
	}
	if n := query[int64](t, db, "SELECT assumeNotNull(level) FROM events_once"); n != 7 {
		t.Errorf("level is %d, want 7", n)
	}
	if err := db.conn.Exec(t.Context(), "ALTER TABLE events DROP COLUMN level"); err != nil {
		t.Fatal(err)
	}
	if changed, err := db.RefreshView(t.Context(), "events"); !changed || err != nil {
		t.Errorf("a column was dropped: changed %t, %v", changed, err)
	}
	if n := query[uint64](t, db, "SELECT count() FROM (SELECT * FROM events_once)"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
	if changed, err := db.RefreshView(t.Context(), "errors"); changed || err != nil {
		t.Errorf("errors: changed %t, %v", changed, err)
	}
	if n := query[uint64](t, db,
		"SELECT count() FROM (SELECT code, message, raw, raw_range FROM errors_once)"); n != 0 {
		t.Errorf("%d errors, want 0", n)
	}
}
