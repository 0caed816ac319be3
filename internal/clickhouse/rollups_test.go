package clickhouse

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
)

const dayMillis = secondsOfDay * 1000

func shipped(t *testing.T, name string) Rollup {
	t.Helper()
	text, err := sqlfiles.Rollup(name)
	if err != nil {
		t.Fatal(err)
	}
	return Rollup{Name: name, Select: text}
}

// refreshDue computes all days that are due, and returns them.
func refreshDue(t *testing.T, db *DB, r Rollup) (days []string) {
	t.Helper()
	all, err := db.RollupDays(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var due []time.Time
	for _, d := range all {
		if d.Due {
			due = append(due, d.Day)
			days = append(days, d.Day.Format("01-02"))
		}
	}
	batches, err := db.RollupBatches(t.Context(), r, due)
	if err != nil {
		t.Fatal(err)
	}
	for _, batch := range batches {
		if _, err := db.RefreshRollup(t.Context(), r, batch); err != nil {
			t.Fatal(err)
		}
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
	if _, err := db.RefreshRollup(t.Context(), wrong, []time.Time{time.UnixMilli(noon + dayMillis).UTC()}); err == nil {
		t.Error("rows of other days were put in place")
	}
	r.Name = "events"
	if _, err := db.CreateRollup(t.Context(), r); err == nil {
		t.Error("events became a rollup")
	}
}

// rolledUpUsers is what daily_users has, and what it should have.
func rolledUpUsers(t *testing.T, db *DB) (got, want string) {
	t.Helper()
	rows := func(from string) string {
		return query[string](t, db, "SELECT toString(groupArray((day, user_id, n, paid))) FROM (SELECT * FROM ("+from+
			") ORDER BY day, user_id)")
	}
	return rows("SELECT day, user_id, events AS n, revenue AS paid FROM daily_users"),
		rows("SELECT toDate(timestamp) AS day, user_id, count() AS n, sum(num) AS paid FROM" +
			" (SELECT *, toFloat64(properties.price.:Int64) AS num FROM events_once) GROUP BY day, user_id")
}

// A purchase of a user at a time.
func purchaseAt(i int, ms int64) pipeline.Event {
	e := event(i, `{"price":2}`)
	e.Name, e.Timestamp, e.UserID = []byte("purchase"), ms, fmt.Appendf(nil, "u%d", i%3)
	return e
}

// A day is due only if something may have come since it was computed.
func TestRollupDueIsTrue(t *testing.T) {
	db, _, _ := open(t)
	r := shipped(t, "daily_users")
	for i, step := range []struct {
		day  int64
		want []string
	}{
		{0, []string{"11-22"}}, {-7, []string{"11-15"}}, {-30, []string{"10-23"}}, {-1, []string{"11-15", "11-21", "11-22"}},
	} {
		insert(t, db, fmt.Sprint("due", i), purchaseAt(i, noon+step.day*dayMillis))
		if diff := cmp.Diff(step.want, refreshDue(t, db, r)); diff != "" {
			t.Errorf("day %d changed, days computed (-want +got):\n%s", step.day, diff)
		}
		if again := refreshDue(t, db, r); len(again) > 0 {
			t.Errorf("day %d was computed, and nothing has come since: %v are due", step.day, again)
		}
	}
	if err := db.conn.Exec(t.Context(), "OPTIMIZE TABLE events FINAL"); err != nil {
		t.Fatal(err)
	}
	if due := refreshDue(t, db, r); len(due) > 0 {
		t.Errorf("parts were merged, and no row has come: %v are due", due)
	}
}

func TestBatches(t *testing.T) {
	monday := pipeline.Partition(noon)
	many, one := Rollup{Select: "{from:Date} {to:Date}"}, Rollup{Select: "{day:Date}"}
	days := func(n int, step int64) (all []time.Time) {
		for i := range n {
			all = append(all, time.UnixMilli(noon+(int64(i)*step-int64(n)*step)*dayMillis).UTC())
		}
		return all
	}
	for name, tt := range map[string]struct {
		r    Rollup
		have weeks
		days []time.Time
		want []int
	}{
		"nothing":              {many, weeks{}, nil, nil},
		"one by one":           {one, weeks{}, days(3, 1), []int{1, 1, 1}},
		"many days":            {many, weeks{}, days(250, 50), []int{100, 100, 50}},
		"a large week":         {many, weeks{monday: {rows: batchRows + 1}}, days(10, 1)[3:], []int{1, 1, 1, 1, 1, 1, 1}},
		"a large week between": {many, weeks{monday - 21*day: {rows: batchRows + 1}}, days(6, 10), []int{4, 2}},
		"weeks":                {many, weeks{monday: {rows: batchRows}, monday - 7*day: {rows: 1}}, days(10, 1), []int{4, 6}},
	} {
		var got []int
		for _, b := range tt.r.batches(tt.have, tt.days) {
			got = append(got, len(b))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: days of batches -want +got\n%s", name, diff)
		}
	}
}

// Clients with wrong clocks send events of many days. Few statements compute them.
func TestRollupOfWildDays(t *testing.T) {
	db, _, _ := open(t)
	var events []pipeline.Event
	weeks := map[int64][]pipeline.Event{}
	for i := range 130 {
		e := purchaseAt(i, noon-int64(i%7)*dayMillis-int64(i)*61*dayMillis) // since 1985
		events = append(events, e)
		weeks[pipeline.Partition(e.IdentityTime())] = append(weeks[pipeline.Partition(e.IdentityTime())], e)
	}
	for week, these := range weeks {
		insert(t, db, fmt.Sprint("wild", week), these...)
	}
	r := shipped(t, "daily_users")
	days, err := db.RollupDays(t.Context(), r)
	if err != nil || len(days) != len(events) {
		t.Fatalf("%d days, %v, want %d", len(days), err, len(events))
	}
	if due := refreshDue(t, db, r); len(due) != len(events) {
		t.Errorf("%d days were computed, want %d", len(due), len(events))
	}
	if got, want := rolledUpUsers(t, db); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if due := refreshDue(t, db, r); len(due) > 0 {
		t.Errorf("%d days are due", len(due))
	}
}

// A process that was stopped while it refreshed does not put old rows in place of newer ones.
func TestRollupOfStoppedProcess(t *testing.T) {
	db, _, _ := open(t)
	db.settling = 0
	r, days := shipped(t, "daily_users"), []time.Time{pipeline.Millis(noon - 12*3600_000)}
	insert(t, db, "a", purchaseAt(0, noon))
	stopped, err := db.beginRefresh(t.Context(), r, days)
	if err != nil {
		t.Fatal(err)
	}
	if err := stopped.compute(t.Context()); err != nil {
		t.Fatal(err)
	}
	db.changed.marked = nil
	insert(t, db, "b", purchaseAt(1, noon))
	if due := refreshDue(t, db, r); len(due) != 1 {
		t.Errorf("%v are due", due)
	}
	if stopped.put(t.Context()) == nil {
		t.Error("it put its rows in place after another process had begun")
	}
	if due := refreshDue(t, db, r); len(due) != 0 {
		t.Errorf("%v are due", due)
	}
	if got, want := rolledUpUsers(t, db); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// A stopped process that found no events of a day does not delete what another one has computed of it since.
func TestRollupOfStoppedProcessWithoutEvents(t *testing.T) {
	db, _, _ := open(t)
	db.settling = 0
	r, day := shipped(t, "daily_users"), pipeline.Millis(noon-12*3600_000)
	for _, days := range [][]time.Time{{day}, {day, day.AddDate(0, 0, 1)}} {
		for _, s := range []string{"TRUNCATE TABLE events", "TRUNCATE TABLE rollup_days", "TRUNCATE TABLE daily_users"} {
			if err := db.conn.Exec(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		insert(t, db, fmt.Sprint("next day", len(days)), purchaseAt(0, noon+dayMillis))
		stopped, err := db.beginRefresh(t.Context(), r, days)
		if err != nil {
			t.Fatal(err)
		}
		if err := stopped.compute(t.Context()); err != nil {
			t.Fatal(err)
		}
		db.changed.marked = nil
		insert(t, db, fmt.Sprint("day", len(days)), purchaseAt(1, noon))
		refreshDue(t, db, r)
		if stopped.put(t.Context()) == nil {
			t.Error("it put its rows in place after another process had begun")
		}
		if due := refreshDue(t, db, r); len(due) != 0 {
			t.Errorf("%v are due", due)
		}
		if got, want := rolledUpUsers(t, db); got != want {
			t.Errorf("%d days: got %s, want %s", len(days), got, want)
		}
	}
}

// Two processes refresh at once, one of them without a claim, in any order of their steps. Each is killed after some of
// them, and events come meanwhile. What is not due is right.
func TestRollupInterleaved(t *testing.T) {
	first, _, opts := open(t)
	second, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close() })
	first.settling, second.settling = 0, 0 // an insert is in the table before the next step
	r := shipped(t, "daily_users")
	days := []time.Time{pipeline.Millis(noon - 12*3600_000), pipeline.Millis(noon + 12*3600_000)}
	rnd := rand.New(rand.NewPCG(3, 4))
	events := 0
	arrive := func() {
		t.Helper()
		first.changed.marked = nil
		insert(t, first, fmt.Sprint("e", events), purchaseAt(events, noon+rnd.Int64N(2)*dayMillis))
		events++
	}
	arrive()
	for round := range 12 {
		trace := ""
		type process struct {
			*DB
			f    *refresh
			left []func(context.Context) error
		}
		both := []*process{{DB: first}, {DB: second}}
		for _, p := range both {
			p.left = []func(context.Context) error{
				func(ctx context.Context) (err error) { p.f, err = p.beginRefresh(ctx, r, days); return err },
				func(ctx context.Context) error { return p.f.compute(ctx) },
				func(ctx context.Context) error { return p.f.put(ctx) },
				func(ctx context.Context) error { return p.f.save(ctx) },
			}[:1+rnd.IntN(4)]
			if rnd.IntN(2) == 0 {
				p.left = p.left[:cap(p.left)]
			}
		}
		for len(both[0].left)+len(both[1].left) > 0 {
			if rnd.IntN(3) == 0 {
				arrive()
				trace += " event"
			}
			n := rnd.IntN(2)
			if p := both[n]; len(p.left) > 0 {
				trace += fmt.Sprintf(" %d:%d", n, len(p.left))
				if p.left[0](t.Context()) != nil {
					trace += "!"
					p.left = p.left[:1] // it ends
				}
				p.left = p.left[1:]
			}
		}
		refreshDue(t, first, r)
		if got, want := rolledUpUsers(t, first); got != want {
			t.Fatalf("%d:%s\n got %s\nwant %s", round, trace, got, want)
		}
	}
	if n := query[uint64](t, first, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name LIKE '%staging%'"); n > 0 {
		t.Errorf("%d staging tables are left", n)
	}
}
