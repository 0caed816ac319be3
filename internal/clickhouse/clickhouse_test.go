package clickhouse

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/servers"
	"github.com/penstock/penstock/tools/devstack"
)

func open(t *testing.T) (*DB, *devstack.ClickHouse, Options) {
	t.Helper()
	c := servers.ClickHouse(t)
	opts := Options{Addresses: []string{c.Addr()}, Database: "penstock-test", User: c.User(), Password: c.Password(),
		Timeout: 30 * time.Second, Conns: 2}
	applied, err := Migrate(t.Context(), opts, sqlfiles.Files, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(applied) < 3 {
		t.Errorf("applied %v", applied)
	}
	if again, err := Migrate(t.Context(), opts, sqlfiles.Files, func(string) {}); err != nil || len(again) != 0 {
		t.Errorf("the second time: applied %v, %v", again, err)
	}
	db, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, c, opts
}

const noon = int64(1795348800000) // 2026-11-22T12:00:00Z

func event(i int, properties string) pipeline.Event {
	return pipeline.Event{ID: pipeline.UUIDv5([]byte("p"), fmt.Append(nil, i)), Project: []byte("p"), Name: []byte("n"),
		Timestamp: noon, ReceivedAt: noon + 5,
		SessionID: []byte("s"), UserID: []byte("u"), Receiver: []byte("r"), Seq: uint64(i), Properties: []byte(properties),
		Context: []byte(`{"ip":"1.2.3.4"}`)}
}

func query[T any](t *testing.T, db *DB, sql string) T {
	t.Helper()
	var v T
	if err := db.conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func insert(t *testing.T, db *DB, token string, events ...pipeline.Event) {
	t.Helper()
	for i := range events {
		events[i].Row = uint32(i)
	}
	if err := insertEvents(t.Context(), db, "events", token, "events/o", 0, events); err != nil {
		t.Fatal(err)
	}
}

func TestCheckWantsAWindow(t *testing.T) {
	db, _, _ := open(t)
	for _, table := range []string{"events", "errors"} {
		if err := db.Check(t.Context(), table); err != nil {
			t.Error(err)
		}
	}
	for _, tt := range []struct{ sql, want string }{
		{"ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 0", "would count twice"},
		{"DROP TABLE events", "run `penstock setup`"},
	} {
		if err := db.conn.Exec(t.Context(), tt.sql); err != nil {
			t.Fatal(err)
		}
		err := db.Check(t.Context(), "events")
		if err == nil || !strings.Contains(err.Error(), tt.want) || retry.ClassOf(err) == retry.Outage {
			t.Errorf("%s: %v", tt.sql, err)
		}
	}
}

func TestInsertOnceByToken(t *testing.T) {
	db, _, _ := open(t)
	for _, token := range []string{"a", "a", "b"} {
		insert(t, db, token, event(1, `{}`), event(2, `{}`))
	}
	if n := query[uint64](t, db, "SELECT count() FROM events"); n != 4 {
		t.Errorf("%d rows before merges, want 4", n)
	}
	if n := query[uint64](t, db, "SELECT count() FROM events FINAL"); n != 2 {
		t.Errorf("%d rows with FINAL, want 2", n)
	}
}

// Queries return what was sent, with the same types.
func TestPropertiesKeepTheirTypes(t *testing.T) {
	db, _, _ := open(t)
	for i, tt := range []struct{ properties, path, kind, text string }{
		{`{"v":1}`, "v", "Int64", "1"},
		{`{"v":-9223372036854775808}`, "v", "Int64", "-9223372036854775808"},
		{`{"v":18446744073709551615}`, "v", "UInt64", "18446744073709551615"},
		{`{"v":1.5}`, "v", "Float64", "1.5"},
		{`{"v":true}`, "v", "Bool", "true"},
		{`{"v":"2026-11-22"}`, "v", "String", "2026-11-22"},
		{`{"v":"2026-11-22T10:00:00Z"}`, "v", "String", "2026-11-22T10:00:00Z"},
		{`{"v":"12"}`, "v", "String", "12"},
		{`{"v":"zażółć 🐉\n\u0001"}`, "v", "String", "zażółć 🐉\n\u0001"},
		{`{"a":{"b":{"c":3}}}`, "a.b.c", "Int64", "3"},
		{`{"v":[1,2,3]}`, "v", "Array(Nullable(Int64))", "[1,2,3]"},
		{`{"v":["x",null]}`, "v", "Array(Nullable(String))", "['x',NULL]"},
	} {
		insert(t, db, fmt.Sprint("types", i), event(100+i, tt.properties))
		where := fmt.Sprintf(" FROM events WHERE seq = %d", 100+i)
		if got := query[string](t, db, "SELECT dynamicType(properties."+tt.path+")"+where); got != tt.kind {
			t.Errorf("%s is %s, want %s", tt.properties, got, tt.kind)
		}
		if got := query[string](t, db, "SELECT toString(properties."+tt.path+")"+where); got != tt.text {
			t.Errorf("%s reads %q, want %q", tt.properties, got, tt.text)
		}
	}
}

// If a path occurs twice, the receiver rejects what the table would reject.
func TestSharedPaths(t *testing.T) {
	db, _, _ := open(t)
	for _, text := range []string{
		`{"a.b":1,"a":{"b":2}}`, `{"a":{"b":2},"a.b":[]}`, `{"a.b":null,"a":{"b":2}}`, `{"a.b":{},"a":{"b":2}}`,
		`{"a.b":1,"a":{"b":{"c":2}}}`,
		`{"a.b":{"c":1},"a":{"b":{"d":2}}}`, `{"a.b":{"c":1},"a":{"b":{"c":2}}}`, `{"x":[1,{"a.b":"1","a":{"b":2}}]}`,
		`{"x":[[{"a.b":1,"a":{"b":2}}]]}`,
		`{"a..b":1,"a":{".b":2}}`, `{"a..b":1,"a":{"":{"b":2}}}`, `{".a":1,"":{"a":2}}`, `{"a":1,"a.b":2,"b":{"c":3}}`,
		`{"x":[{"a.b":null,"a":{"b":2}}]}`,
	} {
		var got string
		err := db.conn.QueryRow(t.Context(), "SELECT toString(CAST(?, 'JSON'))", text).Scan(&got)
		twice := err != nil && strings.Contains(err.Error(), "Duplicate path")
		if err != nil && !twice {
			t.Errorf("%s: %v", text, err)
		}
		if path := jsonscan.SharedPath([]byte(text)); (path != nil) != twice {
			t.Errorf("%s: shared path %q, ClickHouse: %v", text, path, err)
		}
	}
}

// With FINAL, a client's resend is one row, also on another day and without a time.
func TestResendCollapses(t *testing.T) {
	db, _, _ := open(t)
	first := event(1, `{}`)
	first.Timestamp = pipeline.NoTime
	second := first
	second.ReceivedAt += 25 * 3600 * 1000
	insert(t, db, "a", first)
	insert(t, db, "b", second)
	if n := query[uint64](t, db, "SELECT count() FROM events"); n != 2 {
		t.Fatalf("%d rows", n)
	}
	if n := query[uint64](t, db, "SELECT count() FROM events FINAL"); n != 1 {
		t.Errorf("%d rows with FINAL, want 1", n)
	}
	if got := query[time.Time](t, db, "SELECT min(timestamp) FROM events"); got.UnixMilli() != first.ReceivedAt {
		t.Errorf("timestamp %s, want the time of receipt", got)
	}
}

func TestErrorsAreClassed(t *testing.T) {
	db, c, opts := open(t)
	bad := event(1, `{"v":`)
	if err := insertEvents(t.Context(), db, "events", "x", "o", 0,
		[]pipeline.Event{bad}); retry.ClassOf(err) != retry.Permanent {
		t.Errorf("broken JSON: class %d, %v", retry.ClassOf(err), err)
	}
	if err := insertEvents(t.Context(), db, "nothing", "x", "o", 0,
		[]pipeline.Event{event(1, `{}`)}); retry.ClassOf(err) != retry.Outage {
		t.Errorf("no such table: class %d, %v", retry.ClassOf(err), err)
	}
	opts.Password = "wrong"
	wrong, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if err := wrong.Ping(t.Context()); retry.ClassOf(err) != retry.Outage {
		t.Errorf("wrong password: class %d, %v", retry.ClassOf(err), err)
	}
	c.Kill()
	if err := db.Ping(context.Background()); retry.ClassOf(err) != retry.Outage {
		t.Errorf("server away: class %d, %v", retry.ClassOf(err), err)
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for db.Ping(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the pool does not come back")
		}
	}
}

// A trial rejects what the table's computed columns and constraints reject, and stores nothing.
func TestTrial(t *testing.T) {
	db, _, _ := open(t)
	for _, q := range []string{
		"ALTER TABLE events ADD COLUMN level UInt8 MATERIALIZED accurateCast(properties.level.:Int64, 'UInt8')",
		"ALTER TABLE events ADD CONSTRAINT known CHECK project != 'unknown'",
		fmt.Sprintf("CREATE TABLE %s%d_left (a Int8) ENGINE = Null", trialPrefix, time.Now().Add(-2*time.Hour).Unix()),
	} {
		if err := db.conn.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	trial, err := db.Try(t.Context(), "events")
	if err != nil {
		t.Fatal(err)
	}
	foreign := event(1, `{"level":3}`)
	foreign.Project = []byte("unknown")
	for _, tt := range []struct {
		name  string
		event pipeline.Event
		code  int
	}{
		{"good", event(1, `{"level":3}`), 0},
		{"too large for its column", event(1, `{"level":300}`), 70},
		{"no number", event(1, `{"level":"x"}`), 349},
		{"constraint", foreign, 469},
	} {
		err := trial.Insert(t.Context(), "o", []pipeline.Event{tt.event})
		if got := retry.CodeOf(err); got != tt.code || (err != nil) != (tt.code != 0) || err != nil &&
			retry.ClassOf(err) != retry.Permanent {
			t.Errorf("%s: got %v (code %d), want code %d", tt.name, err, got, tt.code)
		}
		direct := insertEvents(t.Context(), db, "events", tt.name, "o", 0, []pipeline.Event{tt.event})
		if retry.CodeOf(direct) != tt.code {
			t.Errorf("%s: the table itself says %v", tt.name, direct)
		}
	}
	if err := trial.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := query[uint64](t, db, "SELECT count() FROM system.tables WHERE startsWith(name, '"+trialPrefix+"')"); n != 0 {
		t.Errorf("%d trials are left", n)
	}
	if n := query[uint64](t, db, "SELECT count() FROM events"); n != 1 {
		t.Errorf("%d rows in the table, want the good one", n)
	}
}

func TestJobs(t *testing.T) {
	db, _, _ := open(t)
	if _, ok, err := db.OpenJob(t.Context(), "s"); ok || err != nil {
		t.Errorf("got %v %v", ok, err)
	}
	j := Job{Selection: "s", ID: "1", Started: time.UnixMilli(noon).UTC()}
	for _, finished := range []bool{false, true} {
		j.Finished, j.Objects = finished, j.Objects+1
		if err := db.SaveJob(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		got, ok, err := db.OpenJob(t.Context(), "s")
		if ok == finished || err != nil || got != j {
			t.Errorf("got %+v %v %v, want %+v", got, ok, err, j)
		}
		time.Sleep(2 * time.Millisecond) // updated_at decides the order
	}
}

func once(events []pipeline.Event) iter.Seq2[[]pipeline.Event, error] {
	return func(yield func([]pipeline.Event, error) bool) { yield(events, nil) }
}

// insertEvents inserts events into a table as one block.
func insertEvents(ctx context.Context, db *DB, table, token, object string, generation uint32,
	events []pipeline.Event) error {
	b, err := db.NewBlock(ctx, table, object, generation)
	if err != nil {
		return err
	}
	b.Append(events, nil, nil)
	return b.Insert(ctx, token, once(events))
}

// insertText is insertEvents for a server that must parse the JSON.
func insertText(t *testing.T, db *DB, table, token, object string, events ...pipeline.Event) error {
	t.Helper()
	b, err := db.NewBlock(t.Context(), table, object, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.text = true
	return b.Insert(t.Context(), token, once(events))
}

// Large merges by column cost half, and change no value of any type, even if a path has several types.
func TestMergesByColumn(t *testing.T) {
	db, _, _ := open(t)
	vertical := "SELECT sum(value) FROM system.events WHERE event = 'MergeVerticalStageTotalMilliseconds' SETTINGS " +
		"system_events_show_zero_values = 1"
	before := query[uint64](t, db, vertical)
	events := make([]pipeline.Event, 90_000)
	for i := range events {
		events[i] = event(i, fmt.Sprintf(`{"level":%d,"any":%s,"p%d":"words","list":[1,"a",{"b":%d}]}`, i%7,
			[]string{"1", `"1"`, "1.5", "true", `["1"]`}[i%5], i%40, i))
	}
	insert(t, db, "one", events[:60_000]...)
	sum := "SELECT sum(cityHash64(tuple(*))) FROM (SELECT * EXCEPT (properties, context, object_row), " +
		"toString(properties), toString(context), JSONAllPathsWithTypes(properties) FROM events FINAL)"
	insert(t, db, "two", append(events[50_000:], events[:50_000]...)...)
	want := query[uint64](t, db, sum)
	if err := db.conn.Exec(t.Context(), "OPTIMIZE TABLE events FINAL"); err != nil {
		t.Fatal(err)
	}
	if query[uint64](t, db, vertical) == before {
		t.Error("the parts were merged row by row")
	}
	if got := query[uint64](t, db, sum); got != want {
		t.Error("the rows have changed")
	}
	if n := query[uint64](t, db, "SELECT count() FROM events"); n != 90_000 {
		t.Errorf("%d rows, want 90000", n)
	}
}
