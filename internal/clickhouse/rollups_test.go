package clickhouse

import (
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
)

const dayMillis = secondsOfDay * 1000

func shipped(t *testing.T, name string) Rollup {
	t.Helper()
	text, err := fs.ReadFile(sqlfiles.Rollups, "rollups/"+name+".sql")
	if err != nil {
		t.Fatal(err)
	}
	return Rollup{Name: name, Select: string(text)}
}

// refreshDue computes all days that are due, and returns them.
func refreshDue(t *testing.T, db *DB, r Rollup) (days []string) {
	t.Helper()
	all, err := db.RollupDays(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if !d.Due {
			continue
		}
		if _, err := db.RefreshRollup(t.Context(), r, d.Day); err != nil {
			t.Fatal(err)
		}
		days = append(days, d.Day.Format("01-02"))
	}
	if err := db.RollupDone(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	return days
}

// settle lets the days that are marked now count as computed: as if the time for changes to become visible had passed.
func settle(t *testing.T, db *DB) {
	t.Helper()
	db.changed.marked = nil
	for _, s := range []string{
		"TRUNCATE TABLE changed_days",
		"INSERT INTO rollup_days SELECT * REPLACE (now64(3) AS as_of, now64(3) AS refreshed_at) FROM rollup_days FINAL",
	} {
		if err := db.conn.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

// A rollup has each event once, whatever comes and goes, and computes only days that changed.
func TestRollupFollowsEvents(t *testing.T) {
	db, _, _ := open(t)
	r := shipped(t, "daily_users")
	on := func(i, day int) pipeline.Event {
		e := event(i, `{"price":2,"country":"DE"}`)
		e.Name, e.Timestamp, e.UserID = []byte("purchase"), noon+int64(day)*dayMillis, fmt.Appendf(nil, "u%d", i%2)
		return e
	}
	load := func(object, token string, generation uint32, events ...pipeline.Event) {
		t.Helper()
		for i, e := range events { // an insert is of one partition
			e.Row = uint32(i)
			if err := insertEvents(t.Context(), db, "events", fmt.Sprint(token, i), object, generation,
				[]pipeline.Event{e}); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(step string, wantDays []string, want string) {
		t.Helper()
		if diff := cmp.Diff(wantDays, refreshDue(t, db, r)); diff != "" {
			t.Errorf("%s: days computed (-want +got):\n%s", step, diff)
		}
		if got := query[string](t, db, `SELECT arrayStringConcat(groupArray(toString((formatDateTime(day, '%m-%d'), user_id, events,
			revenue))), ' ') FROM (SELECT * FROM daily_users ORDER BY day, user_id)`); got != want {
			t.Errorf("%s: got %s, want %s", step, got, want)
		}
		settle(t, db)
	}
	load("events/a", "a", 0, on(0, 0), on(1, 0), on(2, 1))
	check("loaded", []string{"11-22", "11-23"}, "('11-22','u0',1,2) ('11-22','u1',1,2) ('11-23','u0',1,2)")
	check("nothing new", nil, "('11-22','u0',1,2) ('11-22','u1',1,2) ('11-23','u0',1,2)")
	load("events/b", "b", 0, on(0, 0), on(2, 1))
	check("a resend", []string{"11-22", "11-23"}, "('11-22','u0',1,2) ('11-22','u1',1,2) ('11-23','u0',1,2)")
	load("events/c", "c", 0, on(4, -10))
	check("a late event", []string{"11-12"}, "('11-12','u0',1,2) ('11-22','u0',1,2) ('11-22','u1',1,2) ('11-23','u0',1,2)")
	// A re-ingest that finds fewer events: those of the 12th are gone.
	load("events/c", "c1", 1, on(5, 2))
	if err := db.DeleteOlder(t.Context(), "events", "events/c", 1); err != nil {
		t.Fatal(err)
	}
	check("a replaced object", []string{"11-12", "11-24"},
		"('11-22','u0',1,2) ('11-22','u1',1,2) ('11-23','u0',1,2) ('11-24','u1',1,2)")
	// Nobody marks the days of a DELETE by hand.
	time.Sleep(time.Second) // system.mutations has seconds
	if err := db.conn.Exec(t.Context(), "DELETE FROM events WHERE user_id = 'u1'"); err != nil {
		t.Fatal(err)
	}
	check("an erasure", []string{"11-12", "11-22", "11-23", "11-24"}, "('11-22','u0',1,2) ('11-23','u0',1,2)")
	r.Select += " -- another definition"
	check("another definition", []string{"11-12", "11-22", "11-23", "11-24"}, "('11-22','u0',1,2) ('11-23','u0',1,2)")
}

// The neighbors of a changed day are computed again where calls may lie on both.
func TestRollupAround(t *testing.T) {
	db, _, _ := open(t)
	setCalls(t, db)
	r := shipped(t, "llm_daily")
	r.Around = true
	call := func(i, day int) {
		e := event(i, `{"model":"m","provider":"p","input_tokens":10,"output_tokens":5,"cost_usd":0.5,"latency_ms":100}`)
		e.Name, e.Timestamp = []byte("llm_call"), noon+int64(day)*dayMillis
		insert(t, db, fmt.Sprint("call", i), e)
	}
	for i := range 4 {
		call(i, i)
	}
	refreshDue(t, db, r)
	settle(t, db)
	call(9, 0)
	if diff := cmp.Diff([]string{"11-22", "11-23"}, refreshDue(t, db, r)); diff != "" {
		t.Errorf("days computed (-want +got):\n%s", diff)
	}
	if got := query[string](t, db, `SELECT toString(groupArray((model, calls, total_tokens, cost_usd, latency_p50)))
		FROM (SELECT * FROM llm_daily ORDER BY day)`); got !=
		"[('m',2,30,1,100),('m',1,15,0.5,100),('m',1,15,0.5,100),('m',1,15,0.5,100)]" {
		t.Errorf("llm_daily has %s", got)
	}
}

// A rollup of the configuration is a table of its own, and never one that is there.
func TestOwnRollup(t *testing.T) {
	db, _, _ := open(t)
	r := Rollup{Name: "by_name", Key: "project, name", Select: "SELECT project, name, {day:Date} AS day, count() AS n FROM events FINAL" +
		" WHERE toDate(timestamp) = {day:Date} GROUP BY project, name"}
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if created, err := db.CreateRollup(t.Context(), r); err != nil || created != want {
			t.Fatalf("%d: created %t, %v", i, created, err)
		}
	}
	insert(t, db, "a", event(0, `{}`), event(1, `{}`))
	refreshDue(t, db, r)
	if n := query[uint64](t, db, "SELECT n FROM by_name WHERE day = '2026-11-22' AND name = 'n'"); n != 2 {
		t.Errorf("by_name has %d events, want 2", n)
	}
	wrong := r
	wrong.Select = "SELECT project, name, toDate(timestamp) AS day, count() AS n FROM events GROUP BY ALL -- {day:Date}"
	if _, err := db.RefreshRollup(t.Context(), wrong, time.UnixMilli(noon+dayMillis).UTC()); err == nil {
		t.Error("rows of other days were put in place")
	}
	r.Name = "events"
	if _, err := db.CreateRollup(t.Context(), r); err == nil {
		t.Error("events became a rollup")
	}
}
