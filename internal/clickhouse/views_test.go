package clickhouse

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
)

// An event received on several days is one row with any profile, and merges find all copies.
func TestOnceOverDays(t *testing.T) {
	db, _, _ := open(t)
	timed := event(1, `{"level":1}`)
	sevens := event(2, `{}`)
	sevens.ID, sevens.Timestamp = pipeline.NewUUIDv7(noon-30*day), pipeline.NoTime
	untimed := event(3, `{}`)
	untimed.Timestamp = pipeline.NoTime
	old := event(4, `{}`)
	old.Timestamp = pipeline.MinTime
	for _, e := range []pipeline.Event{timed, sevens, untimed, old} {
		for i := range 3 {
			name := fmt.Sprint(e.Seq, i)
			if err := insertEvents(t.Context(), db, "events", name, name, 0, []pipeline.Event{e}); err != nil {
				t.Fatal(err)
			}
			e.ReceivedAt += 20 * day
		}
	}
	for _, change := range []string{"SELECT 1", "OPTIMIZE TABLE events FINAL"} {
		if err := db.conn.Exec(t.Context(), change); err != nil {
			t.Fatal(err)
		}
		for _, settings := range []clickhouse.Settings{
			{"do_not_merge_across_partitions_select_final": 1}, {"do_not_merge_across_partitions_select_final": 0},
			{"use_skip_indexes_if_final_exact_mode": 0}, {"apply_prewhere_after_final": 1},
			{"enable_automatic_decision_for_merging_across_partitions_for_final": 0},
		} {
			for _, from := range []string{"events FINAL", "events_once", "(SELECT * FROM events_once WHERE name = 'n' OR 1)"} {
				var n uint64
				ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(settings))
				if err := db.conn.QueryRow(ctx, "SELECT count() FROM "+from).Scan(&n); err != nil || n != 4 {
					t.Errorf("%s, %v: %d rows of %s, %v, want 4", change, settings, n, from, err)
				}
			}
		}
	}
	if n := query[uint64](t, db, "SELECT count() FROM events"); n != 4 {
		t.Errorf("%d rows after all merges, want 4", n)
	}
	if got := query[string](t, db, "SELECT arrayStringConcat(arraySort(groupArray(toString(toDate32(timestamp)))), ' ')"+
		" FROM events_once WHERE seq != 3"); got != "1900-01-01 2026-10-23 2026-11-22" {
		t.Errorf("timestamps %s", got)
	}
}

// A row is in the partition that the loader expects.
func TestPartitionOfRows(t *testing.T) {
	db, _, _ := open(t)
	times := []int64{pipeline.NoTime, 0, -1, 1, pipeline.MinTime, pipeline.MaxTime, noon}
	monday := pipeline.Partition(noon)
	for _, edge := range []int64{1262304000000, 2840140800000, monday, monday + 7*day} {
		times = append(times, edge-1, edge, edge+1)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		times = append(times, 1262304000000+rnd.Int64N(1577836800000))
	}
	want := map[string]bool{}
	for i, at := range times {
		e := event(i, `{}`)
		e.Timestamp, e.Row = at, uint32(i)
		if err := insertEvents(t.Context(), db, "events", fmt.Sprint(i), "o", 0, []pipeline.Event{e}); err != nil {
			t.Fatal(err)
		}
		want[fmt.Sprint(i, " ", pipeline.Millis(pipeline.Partition(e.IdentityTime())).Format("20060102"))] = true
	}
	got := map[string]bool{}
	for _, row := range query[[]string](t, db, "SELECT groupArray(concat(toString(object_row), ' ', _partition_id)) FROM events") {
		got[row] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows and partitions: -want +got\n%s", diff)
	}
}

// A filter on the view gives the same rows as on a plain table of events without duplicates, for all columns that the
// view's comment promises.
func TestOnceIsExact(t *testing.T) {
	db, _, _ := open(t)
	rnd := rand.New(rand.NewPCG(5, 6))
	text, err := sqlfiles.Files.ReadFile("001_events.sql")
	if err != nil {
		t.Fatal(err)
	}
	small := strings.Replace(string(text), "index_granularity = 8192", "index_granularity = 16", 1)
	if err := db.apply(t.Context(), migration{text: "DROP TABLE events;\n" + small}); err != nil {
		t.Fatal(err)
	}
	var all []pipeline.Event
	for i := range 3000 {
		e := event(i, fmt.Sprintf(`{"level":%d}`, i%10))
		e.Name, e.Project = fmt.Append(nil, "n", rnd.IntN(3)), fmt.Append(nil, "p", rnd.IntN(2))
		e.UserID, e.SessionID = fmt.Append(nil, "u", rnd.IntN(60)), fmt.Append(nil, "s", rnd.IntN(500))
		if e.Timestamp = noon - rnd.Int64N(40*day); i%20 == 0 {
			e.Timestamp = pipeline.NoTime
		}
		e.ReceivedAt = noon + rnd.Int64N(3600_000)
		all = append(all, e)
	}
	for round := range 4 { // more and more resends in separate parts
		byPartition := map[int64][]pipeline.Event{}
		for i := range all {
			if round > 0 && rnd.IntN(4) > 0 {
				continue
			}
			e := all[i]
			e.ReceivedAt += int64(round) * rnd.Int64N(3*day)
			e.Row = uint32(i)
			p := pipeline.Partition(e.IdentityTime())
			byPartition[p] = append(byPartition[p], e)
		}
		for p, events := range byPartition {
			if err := insertEvents(t.Context(), db, "events", fmt.Sprint(round, p), fmt.Sprint("o", round), 0, events); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The reference is the result of FINAL without pruning.
	if err := db.conn.Exec(t.Context(), "CREATE TABLE plain ENGINE = Memory AS SELECT * EXCEPT properties,"+
		" properties.level.:Int64 AS level FROM events FINAL SETTINGS use_skip_indexes_if_final = 0,"+
		" enable_automatic_decision_for_merging_across_partitions_for_final = 0"); err != nil {
		t.Fatal(err)
	}
	at := func(ms int64) string { return fmt.Sprintf("fromUnixTimestamp64Milli(%d)", ms) }
	for i := range 150 {
		from := noon - rnd.Int64N(40*day)
		conditions := []string{
			"timestamp >= " + at(from), "timestamp < " + at(from+rnd.Int64N(9*day)), "timestamp >= " + at(noon+rnd.Int64N(3*day)),
			"toDate(timestamp) = toDate(" + at(from) + ")", "name = 'n1'", "project = 'p0'",
			fmt.Sprintf("user_id = 'u%d'", rnd.IntN(60)), fmt.Sprintf("session_id = 's%d'", rnd.IntN(500)),
			"event_id = '" + all[rnd.IntN(len(all))].ID.String() + "'", "level = 7",
			"received_at >= " + at(noon+rnd.Int64N(6*day)), "received_at < " + at(noon+rnd.Int64N(6*day)),
			fmt.Sprintf("object = 'o%d'", rnd.IntN(4)), "seq % 7 = 3",
		}
		rnd.Shuffle(len(conditions), func(i, j int) { conditions[i], conditions[j] = conditions[j], conditions[i] })
		where := strings.Join(conditions[:1+rnd.IntN(3)], " AND ")
		rows := "SELECT (count(), sum(cityHash64(event_id, name, project, timestamp, received_at, object, seq)))::String FROM "
		want := query[string](t, db, rows+"plain WHERE "+where)
		got := query[string](t, db, rows+"(SELECT *, properties.level.:Int64 AS level FROM events_once) WHERE "+where)
		if got != want {
			t.Errorf("%d: WHERE %s: got %s, want %s", i, where, got, want)
		}
	}
}

// The view gets columns of properties that setup adds later, and works without a dropped one. It never has the columns
// for llm_calls.
func TestOnceHasAddedColumns(t *testing.T) {
	_, _, opts := open(t)
	db, _ := setUp(t, opts)
	insert(t, db, "before", event(0, `{"level":7}`))
	mirror := func(what string, want ...string) {
		t.Helper()
		changed, err := db.MirrorColumns(t.Context())
		if diff := cmp.Diff(want, changed); diff != "" || err != nil {
			t.Errorf("%s: %v, views that changed -want +got\n%s", what, err, diff)
		}
	}
	columns := func() string {
		return query[string](t, db, "SELECT arrayStringConcat(groupArray(name), ' ') FROM (SELECT name FROM system.columns"+
			" WHERE database = currentDatabase() AND table = 'events_once' ORDER BY position)")
	}
	const own = "event_id project name timestamp identity_time received_at session_id user_id receiver seq properties " +
		"context object object_row generation"
	mirror("nothing was added")
	if got := columns(); got != own {
		t.Errorf("columns are %q, want %q", got, own)
	}
	if _, _, err := db.AddColumns(t.Context(), "events", []Column{{"level", "level", "Int64"}}); err != nil {
		t.Fatal(err)
	}
	mirror("a column was added", "events_once")
	if got := columns(); got != own+" level" {
		t.Errorf("columns are %q, want also level", got)
	}
	if n := query[int64](t, db, "SELECT assumeNotNull(level) FROM events_once"); n != 7 {
		t.Errorf("level is %d, want 7", n)
	}
	if err := db.apply(t.Context(), migration{text: "ALTER TABLE daily_users COMMENT COLUMN events 'other'"}); err != nil {
		t.Fatal(err)
	}
	mirror("a comment was changed", "users_by_day")
	if err := db.conn.Exec(t.Context(), "ALTER TABLE events DROP COLUMN level"); err != nil {
		t.Fatal(err)
	}
	mirror("a column was dropped", "events_once")
	if n := query[uint64](t, db, "SELECT count() FROM (SELECT * FROM events_once)"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
	if n := query[uint64](t, db,
		"SELECT count() FROM (SELECT code, message, raw, raw_range FROM errors_once)"); n != 0 {
		t.Errorf("%d errors, want 0", n)
	}
}

// Amounts that are not finite numbers do not affect others' sums: in the view, the rollup, a column, and an earlier
// version's column.
func TestAmountsAreFinite(t *testing.T) {
	db, _, _ := open(t)
	if err := db.apply(t.Context(), migration{text: "ALTER TABLE events ADD COLUMN price Nullable(Float64) MATERIALIZED" +
		" if(dynamicType(properties.price) = 'Bool', NULL, accurateCastOrNull(properties.price, 'Float64'))" +
		" COMMENT 'penstock: properties.price as Float64'"}); err != nil {
		t.Fatal(err)
	}
	var events []pipeline.Event
	for i, properties := range []string{`{"price":"nan"}`, `{"price":"inf","product":"gem"}`, `{"price":"1e400","item":"x","product":"y"}`,
		`{"price":"4.99","product_id":"p"}`, `{"price":9,"sku":"s"}`, `{"price":{"a":1}}`, `{"revenue":true,"price":1}`,
		`{"revenue":false}`} {
		e := event(i, properties)
		e.Name = []byte("purchase")
		if i == 0 {
			e.Timestamp = pipeline.NoTime
			if err := insertEvents(t.Context(), db, "events", "untimed", "o", 0, []pipeline.Event{e}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		events = append(events, e)
	}
	insert(t, db, "a", events...)
	columns := []Column{{"price", "price", "Float64"}, {"paid", "price", "Float64"}}
	for i, want := range []string{"[paid] [price]", "[] []"} {
		added, changed, err := db.AddColumns(t.Context(), "events", columns)
		if got := fmt.Sprint(added, " ", changed); got != want || err != nil {
			t.Errorf("%d: added and changed %s, %v, want %s", i, got, err, want)
		}
	}
	if _, _, err := db.MaterializeColumns(t.Context(), "events", columns, time.Minute); err != nil {
		t.Fatal(err)
	}
	refreshDue(t, db, shipped(t, "daily_users"))
	for sql, want := range map[string]float64{
		"SELECT round(assumeNotNull(sum(amount)), 2) FROM purchases": 14.99,
		"SELECT round(sum(revenue), 2) FROM daily_users":             14.99,
		"SELECT round(assumeNotNull(sum(price)), 2) FROM events":     14.99,
		"SELECT round(assumeNotNull(sum(paid)), 2) FROM events":      14.99,
		"SELECT toFloat64(sum(purchases)) FROM daily_users":          8,
	} {
		if got := query[float64](t, db, sql); got != want {
			t.Errorf("%s: %v, want %v", sql, got, want)
		}
	}
	if got := query[string](t, db, "SELECT arrayStringConcat(arraySort(groupArray(product)), ' ') FROM purchases WHERE product != ''"); got !=
		"gem p s y" {
		t.Errorf("products are %q", got)
	}
}

// A filter on timestamp reads only the weeks in its range.
func TestViewsPrune(t *testing.T) {
	db, _, _ := open(t)
	for week := range 8 {
		e := event(week, `{"price":2}`)
		e.Name, e.Timestamp = []byte("purchase"), noon-int64(week)*7*day
		insert(t, db, fmt.Sprint(week), e)
	}
	for _, what := range []string{"sum(amount) FROM purchases", "count() FROM events_once", "uniq(user_id) FROM events_once"} {
		got := query[string](t, db, "SELECT arrayStringConcat(groupArray(explain), ' ') FROM (EXPLAIN indexes = 1 SELECT "+what+
			" WHERE timestamp >= '2026-11-16 00:00:00')")
		if !strings.Contains(got, "Parts: 1/8") {
			t.Errorf("%s: a filter on the last week reads %s", what, got)
		}
	}
}
