package clickhouse

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/servers"
)

// oldDatabase creates a database of the last version before 0.1.0, with resends over days, typed columns, a TTL, an
// index, and deleted rows.
func oldDatabase(t *testing.T) (*DB, Options) {
	t.Helper()
	c := servers.ClickHouse(t)
	opts := Options{Addresses: []string{c.Addr()}, Database: "unreleased", User: c.User(), Password: c.Password(),
		Timeout: 30e9, Conns: 2}
	if err := createDatabase(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	old, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { old.Close() })
	text, err := os.ReadFile("testdata/unreleased.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.apply(t.Context(), migration{name: "unreleased.sql", text: string(text)}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := old.AddColumns(t.Context(), "events", []Column{{"level", "level", "Int64"}}); err != nil {
		t.Fatal(err)
	}
	timed := func(i int, properties string, weeks int) pipeline.Event {
		e := event(i, properties)
		e.Timestamp -= int64(weeks) * 7 * day
		return e
	}
	events := []pipeline.Event{
		timed(1, `{"level":7,"deep":{"x":0.5},"list":[1,"a",{"b":2}],"float":1.0,"large":100000000000000000000.5}`, 0),
		timed(2, `{"messages":[{"role":"user","n":2.0}],"when":"2026-11-22 10:00:00","level":"8"}`, 1),
		timed(3, `{}`, 3), timed(4, `{"gone":true}`, 0),
	}
	for days := range int64(3) { // resends on the following days
		for i := range events {
			events[i].ReceivedAt = noon + days*day
		}
		object := fmt.Sprint("events/o", days)
		if err := insertEvents(t.Context(), old, "events", object, object, 0, events); err != nil {
			t.Fatal(err)
		}
		if err := insertEvents(t.Context(), old, "errors", object, "e"+object, 0, events[1:]); err != nil {
			t.Fatal(err)
		}
	}
	// Without a time, the time in a UUIDv7 was not used.
	id := pipeline.NewUUIDv7(noon - 30*day)
	saveLoad(t, old, nil)
	if err := old.apply(t.Context(), migration{text: fmt.Sprintf(`
		INSERT INTO events (event_id, name, timestamp, identity_time, received_at, object, properties) VALUES
			('%[1]s', 'seven', '2026-11-22 12:00:00', 0, '2026-11-22 12:00:00', 'events/o0', '{}'),
			('00000000-0000-5000-8000-000000000001', 'five', '2026-11-22 12:00:00', 0, '2026-11-22 12:00:00', 'events/o0', '{}'),
			('%[1]s', 'seventies', 0, 0, '2026-11-22 12:00:00', 'events/o0', '{}');
		INSERT INTO events (event_id, name, timestamp, identity_time, received_at, object, properties) VALUES
			('%[1]s', 'seven', '2026-11-24 12:00:00', 0, '2026-11-24 12:00:00', 'events/o2', '{}'),
			('00000000-0000-5000-8000-000000000001', 'five', '2026-11-24 12:00:00', 0, '2026-11-24 12:00:00', 'events/o2', '{}');
		DELETE FROM events WHERE seq = 4 SETTINGS lightweight_deletes_sync = 2;
		ALTER TABLE events ADD COLUMN note String DEFAULT 'none', ADD INDEX note_set note TYPE set(10) GRANULARITY 2,
			MODIFY TTL toDateTime(received_at) + INTERVAL 20 YEAR`, id)}); err != nil {
		t.Fatal(err)
	}
	return old, opts
}

// state returns what must not change: all rows, and the types of their values. prefix precedes the names of the tables.
func state(t *testing.T, db *DB, prefix string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, table := range []string{"loads", "redriven", "jobs", "llm_prices"} {
		all[table] = contents(t, db, table)
	}
	all["events"] = query[string](t, db, "SELECT toString(groupArray(t)) FROM (SELECT concat(formatRow('JSONEachRow',"+
		" * EXCEPT (identity_time, timestamp), level), toString(JSONAllPathsWithTypes(properties))) AS t FROM "+
		prefix+"events ORDER BY t)")
	return all
}

// onceState returns what merges leave of it. Which copy of an event they keep is undefined.
func onceState(t *testing.T, db *DB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, table := range []string{"events", "errors"} {
		all[table] = query[string](t, db, "SELECT toString(groupArray(t)) FROM (SELECT concat(formatRow('JSONEachRow',"+
			" * EXCEPT (identity_time, timestamp, received_at, object)), toString(JSONAllPathsWithTypes(properties))) AS t FROM "+
			table+" FINAL ORDER BY t)")
	}
	return all
}

// A copied table keeps the old type of properties, whose paths are unlimited. Merges give its parts a new table's
// limit.
func TestRebuiltTableIsBounded(t *testing.T) {
	db, _, _ := open(t)
	if changed, err := db.BoundPaths(t.Context(), "events"); changed || err != nil {
		t.Errorf("a new table: changed %t, %v", changed, err)
	}
	text, err := sqlfiles.Files.ReadFile("001_events.sql")
	if err != nil {
		t.Fatal(err)
	}
	unlimited := strings.Replace(string(text), "JSON(max_dynamic_paths = 256)", "JSON", 1)
	if err := db.apply(t.Context(), migration{text: "DROP TABLE events;\n" + unlimited}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		if changed, err := db.BoundPaths(t.Context(), "events"); changed != want || err != nil {
			t.Errorf("changed %t, %v, want %t", changed, err, want)
		}
	}
	for part := range 2 {
		keys := make([]string, boundedPaths)
		for i := range keys {
			keys[i] = fmt.Sprintf(`"k%d_%d":%d.0`, part, i, i)
		}
		insert(t, db, fmt.Sprint("part", part), event(100+part, "{"+strings.Join(keys, ",")+"}"))
	}
	if err := db.exec(t.Context(), "merge", "OPTIMIZE TABLE events FINAL"); err != nil {
		t.Fatal(err)
	}
	if got := query[string](t, db, "SELECT toString((max(length(JSONDynamicPaths(properties))), count(),"+
		" sum(length(JSONAllPaths(properties))), min(dynamicType(properties.k1_7)))) FROM events"); got !=
		"(256,2,512,'Float64')" {
		t.Errorf("paths in columns, rows, paths of both, type: %s", got)
	}
	if limit, err := db.maxDynamicPaths(t.Context(), "events"); limit != boundedPaths || err != nil {
		t.Errorf("the limit is %d, %v", limit, err)
	}
}

var jsonLimit = regexp.MustCompile(`JSON\(max_dynamic_paths ?= ?\d+\)`)

// The database of the last version before 0.1.0 becomes equal to a new one, and keeps its rows, columns and TTL.
func TestUnreleasedDatabase(t *testing.T) {
	old, opts := oldDatabase(t)
	if err := old.Check(t.Context(), "events"); err == nil || !strings.Contains(err.Error(), "run `penstock setup`") {
		t.Errorf("a loader takes the old table: %v", err)
	}
	before, once := state(t, old, ""), onceState(t, old)
	copied := 0
	applied, err := Migrate(t.Context(), opts, sqlfiles.Files, func(text string) {
		if strings.HasPrefix(text, "events: copied 20261124, ") && strings.HasSuffix(text, "(3 of 3 partitions)") {
			copied++
			if diff := cmp.Diff(before, state(t, old, "penstock_new_")); diff != "" {
				t.Errorf("rows that were copied: -before +after\n%s", diff)
			}
		}
	})
	if err != nil || copied != 1 {
		t.Fatalf("the end of a copy was told %d times, %v", copied, err)
	}
	db, _ := setUp(t, opts)
	all, err := readMigrations(sqlfiles.Files)
	if err != nil || len(applied) != len(all)-1 {
		t.Errorf("applied %v, %v; want all but the first of %d", applied, err, len(all))
	}
	if diff := cmp.Diff(once, onceState(t, db)); diff != "" {
		t.Errorf("rows: -before +after\n%s", diff)
	}
	if got := query[string](t, db, "SELECT toString(arraySort(groupArray((name, toDate(identity_time), toDate(timestamp),"+
		" _partition_id)))) FROM events FINAL WHERE name != 'n'"); got != "[('five','1970-01-01','2026-11-24','19700101'),"+
		"('seven','2026-10-23','2026-10-23','20261019'),('seventies','1970-01-01','1970-01-01','19700101')]" {
		t.Errorf("rows without a time: %s", got)
	}
	if ttl := ttlOf(query[string](t, db, "SELECT engine_full FROM system.tables WHERE database = 'unreleased'"+
		" AND name = 'events'")); ttl != "toDateTime(received_at) + toIntervalYear(20)" {
		t.Errorf("the TTL is %q", ttl)
	}

	opts.Database = "fresh"
	fresh, _ := setUp(t, opts)
	if err := fresh.apply(t.Context(), migration{text: "ALTER TABLE events ADD COLUMN note String DEFAULT 'none'," +
		" ADD INDEX note_set note TYPE set(10) GRANULARITY 2, MODIFY TTL toDateTime(received_at) + INTERVAL 20 YEAR"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := fresh.AddColumns(t.Context(), "events", []Column{{"level", "level", "Int64"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.MirrorColumns(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := func(db *DB) map[string][]string { // columns that somebody added are in another order
		all := map[string][]string{}
		for table, create := range schema(t, db) {
			create = jsonLimit.ReplaceAllString(create, "JSON")
			all[table] = strings.Split(strings.ReplaceAll(create, ",\n", "\n"), "\n")
			slices.Sort(all[table])
		}
		return all
	}
	if diff := cmp.Diff(lines(fresh), lines(db)); diff != "" {
		t.Errorf("the schemas differ: -new +old\n%s", diff)
	}
	opts.Database = "unreleased"
	if _, again := setUp(t, opts); len(again) != 0 {
		t.Errorf("the second time: applied %v", again)
	}
	// Both forms accept the loader's blocks.
	for _, db := range []*DB{fresh, db} {
		insert(t, db, "after", event(100, `{"messages":[{"n":2.0}]}`))
		if got := query[string](t, db, "SELECT arrayStringConcat(arrayMap(n -> dynamicType(n), properties.messages[].n)) FROM events_once"+
			" WHERE seq = 100"); got != "Float64" {
			t.Errorf("after a load: n is %s", got)
		}
	}
	if err := db.exec(t.Context(), "forget a file",
		"DELETE FROM migrations WHERE name = '0020_unfinished.sql' SETTINGS lightweight_deletes_sync = 2"); err != nil {
		t.Fatal(err)
	}
	if _, err := Migrate(t.Context(), opts, sqlfiles.Files, func(string) {}); err == nil ||
		!strings.Contains(err.Error(), "before 0.1.0") {
		t.Errorf("an earlier database: got %v", err)
	}
}

// A copy that is killed at any point continues.
func TestRebuildGoesOn(t *testing.T) {
	db, opts := oldDatabase(t)
	before, once := state(t, db, ""), onceState(t, db)
	killed, kill := context.WithCancel(t.Context())
	_, err := Migrate(killed, opts, sqlfiles.Files, func(text string) {
		if strings.Contains(text, "1 of 3") {
			kill() // the second partition is not begun
		}
	})
	if err == nil {
		t.Fatal("the first attempt was not killed")
	}
	for name, change := range map[string]string{
		"a part of a partition is copied": "INSERT INTO penstock_new_events SELECT * EXCEPT level FROM penstock_old_events" +
			" WHERE toDate(received_at) = '2026-11-23' AND seq < 3 SETTINGS max_partitions_per_insert_block = 0",
		"a row of a copied partition is twice": "INSERT INTO penstock_new_events SELECT * EXCEPT level FROM" +
			" penstock_old_events WHERE toDate(received_at) = '2026-11-22' AND seq = 1",
	} {
		if err := db.exec(t.Context(), name, change); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Migrate(t.Context(), opts, sqlfiles.Files, func(text string) {
		if strings.HasPrefix(text, "events: copied 20261124, ") {
			if diff := cmp.Diff(before, state(t, db, "penstock_new_")); diff != "" {
				t.Errorf("rows that were copied: -before +after\n%s", diff)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	db, _ = setUp(t, opts)
	if diff := cmp.Diff(once, onceState(t, db)); diff != "" {
		t.Errorf("rows: -before +after\n%s", diff)
	}

	// Killed before it dropped the old table and recorded the file.
	for _, change := range []string{"CREATE TABLE penstock_old_events (received_at DateTime64(3)) ENGINE = MergeTree" +
		" PARTITION BY toDate(received_at) ORDER BY received_at",
		"INSERT INTO migrations (name, sha256, applied_at) VALUES ('001_events.sql', '" + earlier["001_events.sql"][0] +
			"', now64(3) + 1)"} {
		if err := db.exec(t.Context(), "go back", change); err != nil {
			t.Fatal(err)
		}
	}
	db, applied := setUp(t, opts)
	if len(applied) != 1 || applied[0] != "001_events.sql" {
		t.Errorf("applied %v", applied)
	}
	if diff := cmp.Diff(once, onceState(t, db)); diff != "" {
		t.Errorf("rows at the end: -before +after\n%s", diff)
	}
	if n := query[uint64](t, db, "SELECT count() FROM system.tables WHERE name LIKE 'penstock\\_%'"); n != 0 {
		t.Errorf("%d tables are left", n)
	}
}

// An insert that runs during the rename ends in the old table.
func TestRebuildWaitsForInserts(t *testing.T) {
	db, opts := oldDatabase(t)
	ended := make(chan error, 1)
	go func() {
		slow := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"max_block_size": 1}))
		ended <- db.exec(slow, "insert slowly", "INSERT INTO events (event_id, name, received_at, properties)"+
			" SELECT generateUUIDv4(), 'slow', '2026-11-22 12:00:00', '{}' FROM numbers(3) WHERE sleepEachRow(1) = 0")
	}()
	const running = "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO events%sleepEachRow%'"
	for query[uint64](t, db, running) == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := Migrate(t.Context(), opts, sqlfiles.Files, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := query[uint64](t, db, "SELECT count() FROM events WHERE name = 'slow'"); n != 3 {
		t.Errorf("%d of the 3 rows are in the new table", n)
	}
}

// An earlier version's setup may create the table during the copy.
func TestRebuildRefusesTwo(t *testing.T) {
	db, opts := oldDatabase(t)
	for _, change := range []string{"CREATE TABLE penstock_old_events AS events", "CREATE TABLE penstock_new_events AS events"} {
		if err := db.exec(t.Context(), "make both", change); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Migrate(t.Context(), opts, sqlfiles.Files, func(string) {}); err == nil ||
		!strings.Contains(err.Error(), "drop it if it has no rows that you need") {
		t.Errorf("got %v", err)
	}
}
