package clickhouse

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// wantOutage checks for an outage with the code of a missing table.
func wantOutage(t *testing.T, name string, err error) {
	t.Helper()
	if retry.ClassOf(err) != retry.Outage || retry.CodeOf(err) != 60 || !strings.Contains(err.Error(), "gone") {
		t.Errorf("%s: got %v (%s, code %d), want an outage of code 60", name, err, retry.ClassOf(err), retry.CodeOf(err))
	}
}

func TestTableStatus(t *testing.T) {
	db, _, _ := open(t)
	empty, err := db.TableStatus(t.Context())
	if diff := cmp.Diff(map[string]TableStatus{"events": {}, "errors": {}}, empty); diff != "" || err != nil {
		t.Errorf("an empty table: %v, -want +got\n%s", err, diff)
	}
	put(t, db, "events/a", 0, 3, noon)
	now := time.Now().UTC().Truncate(time.Millisecond)
	loaded := func(l *pipeline.Load) { l.State, l.Finished, l.Received = pipeline.Loaded, now, now }
	for _, o := range []struct {
		key    string
		change func(*pipeline.Load)
	}{
		{"old", func(l *pipeline.Load) { l.State = pipeline.Loaded }},
		{"new", loaded},
		{"replaced", loaded},
		{"replaced", func(l *pipeline.Load) { l.State, l.Generation, l.Refused, l.Finished = pipeline.Loading, 1, nil, now }},
		{"loading", func(*pipeline.Load) {}},
		{"failed", func(l *pipeline.Load) { l.State, l.Refused = pipeline.Failed, nil }},
		{"dead", func(l *pipeline.Load) { l.State, l.Received = pipeline.Dead, now.Add(time.Second) }},
		{"other", func(l *pipeline.Load) { l.Pipeline = "errors" }},
	} {
		saveLoad(t, db, func(l *pipeline.Load) {
			l.Key = o.key
			o.change(l)
		})
	}
	got, err := db.TableStatus(t.Context())
	want := map[string]TableStatus{
		"events": {Rows: 3, Newest: now.UnixMilli(), Settled: now.UnixMilli() + 1000, Objects: 2,
			ObjectsLastMinute: 1, RowsLastMinute: 3, Loading: 3,
			Failing: 1, Dead: 1, Refused: 8},
		"errors": {Loading: 1, Refused: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	if err := db.conn.Exec(t.Context(), "DROP TABLE events"); err != nil {
		t.Fatal(err)
	}
	got, err = db.TableStatus(t.Context())
	delete(want, "events")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("without events (-want +got):\n%s", diff)
	}
	if text := "table penstock-test.events does not exist; run `penstock setup`"; err == nil || err.Error() != text {
		t.Errorf("without events: got error %v, want %s", err, text)
	}
}

// Of an old ledger, a status reads only few bytes an object.
func TestStatusOfAnOldLedger(t *testing.T) {
	db, _, _ := open(t)
	const objects = 100_000
	for _, statement := range []string{
		`INSERT INTO loads (key, etag, status, pipeline, rows, received_at, started_at, finished_at, version, loader)
			SELECT 'events/' || hex(sipHash128(number)), hex(number), 'loaded', 'events', 1, now64(3) - 86400, now64(3) - 86400,
			now64(3) - 86400, 1, 'loader' FROM numbers(100000)`,
		"OPTIMIZE TABLE loads FINAL",
	} {
		if err := db.conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	saveLoad(t, db, func(l *pipeline.Load) { l.Key, l.State = "dead", pipeline.Dead })
	var read atomic.Uint64
	ctx := clickhouse.Context(t.Context(), clickhouse.WithProgress(func(p *clickhouse.Progress) { read.Add(p.Bytes) }))
	all, err := db.TableStatus(ctx)
	if st := all["events"]; err != nil || st.Objects != objects || st.Dead != 1 {
		t.Errorf("got %+v, %v, want %d objects and 1 dead letter", st, err, objects)
	}
	n := 0
	count := func(pipeline.Load) error { n++; return nil }
	for _, list := range []func(context.Context, string, func(pipeline.Load) error) error{db.Dead, db.Failing} {
		if err := list(ctx, "events", count); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.Minutes(ctx); err != nil || n != 1 {
		t.Errorf("%d dead letters, %v, want 1", n, err)
	}
	if each := read.Load() / objects; each == 0 || each > 60 {
		t.Errorf("read %d bytes an object, want 60 at most", each)
	}
}

// A loader's metrics need the states of all objects, the newest row and the last verify.
func TestLedgerStatus(t *testing.T) {
	db, _, _ := open(t)
	empty, err := db.LedgerStatus(t.Context())
	if diff := cmp.Diff(map[string]LedgerStatus{}, empty); diff != "" || err != nil {
		t.Errorf("an empty ledger: %v, -want +got\n%s", err, diff)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	dead := func(l *pipeline.Load) { l.State, l.Attempts, l.Received = pipeline.Dead, 9, now.Add(-time.Hour) }
	for _, o := range []struct {
		key    string
		change func(*pipeline.Load)
	}{
		{"old", func(l *pipeline.Load) { l.State, l.Received = pipeline.Loaded, now.Add(-time.Hour) }},
		{"new", func(*pipeline.Load) {}}, // its first attempt
		{"new", func(l *pipeline.Load) { l.State, l.Received = pipeline.Loaded, now }},
		{"later", func(l *pipeline.Load) { l.Received = now.Add(time.Hour) }},
		{"failed", func(l *pipeline.Load) { l.State = pipeline.Failed }},
		{"dead", dead},
		{"redriven", dead},
		{"redriven", func(l *pipeline.Load) { l.State, l.Attempts, l.Received = pipeline.Loaded, 10, now.Add(-2*time.Hour) }},
		{"dropped", func(l *pipeline.Load) {
			l.State, l.Pipeline, l.Received = pipeline.Dropped, "errors", now.Add(-time.Hour)
		}},
		// It is not in the bucket, so the receipt of its events is unknown.
		{"gone", func(l *pipeline.Load) {
			l.State, l.Pipeline, l.Received, l.FirstFail = pipeline.Dead, "errors", time.Time{}, now
		}},
	} {
		saveLoad(t, db, func(l *pipeline.Load) {
			l.Key = o.key
			o.change(l)
		})
	}
	for name, differ := range map[string]bool{"events": false, "errors": true} {
		j := VerifyJob(name, now, differ)
		if j.Detail = name; differ {
			j.FailedOnes = 3
		}
		if err := db.SaveJob(t.Context(), j); err != nil {
			t.Fatal(err)
		}
	}
	j := VerifyJob("errors", now, false)
	j.Detail = "errors again"
	if err := db.SaveJob(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	var last []string
	keep := func(detail string) error { last = append(last, detail); return nil }
	if err := db.LastVerify(t.Context(), keep); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"events", "errors again"}, last); diff != "" {
		t.Errorf("last results (-want +got):\n%s", diff)
	}
	got, err := db.LedgerStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events := got["events"]
	if age := time.Since(time.UnixMilli(events.Verified)); age < 0 || age > time.Minute {
		t.Errorf("verified %s ago", age)
	}
	events.Verified = 0
	got["events"] = events
	errors := got["errors"]
	errors.Verified = 0
	got["errors"] = errors
	want := map[string]LedgerStatus{
		"events": {Objects: [pipeline.LoadStates]uint64{pipeline.Loading: 1, pipeline.Failed: 1, pipeline.Dead: 1},
			Settled: now.Add(-time.Hour).UnixMilli()},
		"errors": {Objects: [pipeline.LoadStates]uint64{pipeline.Dropped: 1, pipeline.Dead: 1}, Settled: now.UnixMilli()},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	loaded, err := db.LoadedStatus(t.Context())
	if diff := cmp.Diff(map[string]LoadedStatus{"events": {Objects: 3, Newest: now.UnixMilli()}}, loaded); diff != "" || err != nil {
		t.Errorf("loaded: %v, -want +got\n%s", err, diff)
	}
}

func TestRunStatus(t *testing.T) {
	db, _, _ := open(t)
	for i, session := range []string{"run-1", "run-2", "runner", "run-3"} {
		e := event(i, `{}`)
		if e.SessionID = []byte(session); i == 3 {
			e.ReceivedAt -= day
		}
		if err := insertEvents(t.Context(), db, "events", session, "o/"+session, 0, []pipeline.Event{e}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := db.RunStatus(t.Context(), "events", "run", noon)
	if diff := cmp.Diff(RunStatus{Rows: 2, Distinct: 2, Objects: 2}, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
	if _, err := db.Merges(t.Context()); err != nil {
		t.Error(err)
	}
}

// A row takes less than 100 bytes with 1000 events: the tables' codecs work.
func TestDiskUse(t *testing.T) {
	db, _, _ := open(t)
	events := make([]pipeline.Event, 1000)
	for i := range events {
		events[i] = event(i, `{"level":7,"text":"words","deep":{"x":0.5},"list":[1,"a",{"b":2}]}`)
	}
	insert(t, db, "a", events...)
	use, err := db.DiskUse(t.Context(), "events")
	if err != nil || use.Parts != 1 || use.Bytes < 10_000 || use.Bytes > 100_000 || len(use.Columns) != 15 {
		t.Errorf("%+v, error %v", use, err)
	}
	for _, table := range []string{"events", "errors"} {
		got := query[string](t, db, "SELECT compression_codec FROM system.columns WHERE database = currentDatabase()"+
			" AND table = '"+table+"' AND name = 'properties'")
		if got != "CODEC(ZSTD(3))" {
			t.Errorf("codec of %s.properties is %s", table, got)
		}
	}
}

// The last hour has sixty minutes, each with loaded and rejected events.
func TestMinutes(t *testing.T) {
	db, _, _ := open(t)
	now := time.Now().UTC()
	e := event(1, `{"stage":"receiver"}`)
	e.Name, e.Context, e.ReceivedAt = []byte("bad"), []byte(`{}`), now.UnixMilli()
	if err := insertEvents(t.Context(), db, "errors", "minutes", "errors/o", 0, []pipeline.Event{e}); err != nil {
		t.Fatal(err)
	}
	if err := db.SaveLoad(t.Context(), pipeline.Load{Key: "events/minutes", Pipeline: "events", State: pipeline.Loaded,
		Rows: 7, Received: now.Add(-9 * time.Second), Started: now, Finished: now}); err != nil {
		t.Fatal(err)
	}
	all, err := db.Minutes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var sum Minute
	for _, m := range all {
		sum.Rows += m.Rows
		sum.Rejected += m.Rejected
		sum.Seconds = max(sum.Seconds, m.Seconds)
	}
	if len(all) != 60 || sum.Rows < 7 || sum.Rejected < 1 || sum.Seconds < 9 {
		t.Errorf("%d minutes, sum %+v", len(all), sum)
	}
	last := all[len(all)-1] // it ends now: what has just happened is in it, whatever the second
	if last.Rows < 7 || last.Rejected < 1 || time.Since(last.Start) < time.Minute {
		t.Errorf("the last minute is %+v", last)
	}
	// A re-ingest replaces old rows. It says nothing about how late rows are.
	if err := db.SaveLoad(t.Context(), pipeline.Load{Key: "events/replaced", Pipeline: "events", State: pipeline.Loaded,
		Rows: 1, Generation: 1, Received: now.AddDate(-40, 0, 0), Started: now, Finished: now}); err != nil {
		t.Fatal(err)
	}
	if all, err = db.Minutes(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Seconds > sum.Seconds {
			t.Errorf("with replaced rows, receipt to row takes %.0f s, want at most %.0f", m.Seconds, sum.Seconds)
		}
	}
}
