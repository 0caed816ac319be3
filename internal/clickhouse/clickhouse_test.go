package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/infra/devstack"
	"github.com/penstock/penstock/infra/devstack/devtest"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

func open(t *testing.T) (*DB, *devstack.ClickHouse, Options) {
	t.Helper()
	c := devtest.ClickHouse(t)
	opts := Options{Addresses: []string{c.Addr()}, Database: "penstock-test", User: "default", Timeout: 30 * time.Second, Conns: 2}
	applied, err := Migrate(t.Context(), opts, sqlfiles.Files)
	if err != nil {
		t.Fatal(err)
	}
	if len(applied) < 3 {
		t.Errorf("applied %v", applied)
	}
	if again, err := Migrate(t.Context(), opts, sqlfiles.Files); err != nil || len(again) != 0 {
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
	return pipeline.Event{ID: pipeline.UUIDv5([]byte("p"), fmt.Append(nil, i)), Project: []byte("p"), Name: []byte("n"), Timestamp: noon, ReceivedAt: noon + 5,
		SessionID: []byte("s"), UserID: []byte("u"), Receiver: []byte("r"), Seq: uint64(i), Properties: []byte(properties), Context: []byte(`{"ip":"1.2.3.4"}`)}
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
	if err := db.Insert(t.Context(), "events", token, "events/o", events); err != nil {
		t.Fatal(err)
	}
}

func TestMigrateRefusesChangedFile(t *testing.T) {
	_, _, opts := open(t)
	changed := fstest.MapFS{}
	for _, name := range []string{"0001_migrations.sql", "0002_events.sql"} {
		text, _ := sqlfiles.Files.ReadFile(name)
		changed[name] = &fstest.MapFile{Data: text}
	}
	changed["0002_events.sql"].Data = append(changed["0002_events.sql"].Data, "-- more\n"...)
	if _, err := Migrate(t.Context(), opts, changed); err == nil || !strings.Contains(err.Error(), "0002_events.sql was changed") {
		t.Errorf("got %v", err)
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

// What was sent is what is read, type for type.
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

// A client's resend is one row with FINAL, on another day and without a time too.
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

func TestPresent(t *testing.T) {
	db, _, _ := open(t)
	insert(t, db, "a", event(1, `{}`), event(2, `{}`)) // rows 0 and 1
	day := [2]int64{noon, noon}
	for _, tt := range []struct {
		object     string
		first, end int64
		received   [2]int64
		want       bool
	}{
		{"events/o", 0, 2, day, true}, {"events/o", 1, 2, day, true}, {"events/o", 2, 9, day, false},
		{"events/x", 0, 2, day, false}, {"events/o", 0, 2, [2]int64{noon + 48*3600*1000, noon + 48*3600*1000}, false},
	} {
		got, err := db.Present(t.Context(), "events", tt.object, tt.first, tt.end, tt.received)
		if err != nil || got != tt.want {
			t.Errorf("%+v: %v, %v", tt, got, err)
		}
	}
}

func TestLedgerKeepsTheFurthest(t *testing.T) {
	db, _, _ := open(t)
	if _, ok, err := db.Load(t.Context(), "k"); ok || err != nil {
		t.Fatalf("an empty ledger: %v, %v", ok, err)
	}
	at := time.UnixMilli(noon).UTC()
	l := pipeline.Load{Key: "k", ETag: "e", Pipeline: "events", Rows: 3, Bytes: 9, ChunkRows: 10, ChunkBytes: 11, Attempts: 1, Loader: "a", Received: at, Started: at, Finished: at}
	save := func(change func(*pipeline.Load)) {
		t.Helper()
		next := l
		change(&next)
		if err := db.SaveLoad(t.Context(), next); err != nil {
			t.Fatal(err)
		}
	}
	load := func() pipeline.Load {
		t.Helper()
		got, ok, err := db.Load(t.Context(), "k")
		if !ok || err != nil {
			t.Fatalf("%v, %v", ok, err)
		}
		return got
	}
	save(func(*pipeline.Load) {})
	if got := load(); got != l {
		t.Errorf("got %+v, want %+v", got, l)
	}
	save(func(n *pipeline.Load) { n.Attempts = 2 })
	save(func(n *pipeline.Load) { n.Attempts = 1 })
	if got := load(); got.Attempts != 2 {
		t.Errorf("attempts %d, want 2", got.Attempts)
	}
	save(func(n *pipeline.Load) { n.Loaded = true })
	save(func(n *pipeline.Load) { n.Attempts = 7 })
	if got := load(); !got.Loaded {
		t.Error("a late `loading` hides `loaded`")
	}
	save(func(n *pipeline.Load) { n.Generation = 1 })
	if got := load(); got.Loaded || got.Generation != 1 {
		t.Errorf("a new generation: %+v", got)
	}
}

func TestErrorsAreClassed(t *testing.T) {
	db, c, opts := open(t)
	bad := event(1, `{"v":`)
	if err := db.Insert(t.Context(), "events", "x", "o", []pipeline.Event{bad}); retry.ClassOf(err) != retry.Permanent {
		t.Errorf("broken JSON: class %d, %v", retry.ClassOf(err), err)
	}
	if err := db.Insert(t.Context(), "nothing", "x", "o", []pipeline.Event{event(1, `{}`)}); retry.ClassOf(err) != retry.Outage {
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
