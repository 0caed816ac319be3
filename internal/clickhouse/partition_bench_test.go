package clickhouse

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/llm"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/testing/servers"
)

// BenchmarkPartitions loads objects with events that are up to 30 days late into several partitions, as a loader does:
// one insert for each partition of an object. docs/design/clickhouse.md has its figures.
func BenchmarkPartitions(b *testing.B) {
	monday := func(ms int64) int64 { return pipeline.Partition(ms) }
	for _, unit := range []struct {
		name, key string
		of        func(ms int64) int64
	}{
		{"receipt", "toDate(received_at)", nil},
		{"day", "toDate(identity_time)", func(ms int64) int64 { return ms / day }},
		{"week", "toMonday(toDate(identity_time))", monday},
		{"month", "toStartOfMonth(toDate(identity_time))",
			func(ms int64) int64 { return int64(pipeline.Millis(ms).Year()*12) + int64(pipeline.Millis(ms).Month()) }},
	} {
		for _, late := range []int{0, 1, 5} {
			b.Run(fmt.Sprintf("%s/late=%d%%", unit.name, late), func(b *testing.B) {
				for b.Loop() {
					sustained{key: unit.key, of: unit.of, late: late, objects: 40, rows: 25_000}.run(b)
				}
			})
		}
	}
}

// BenchmarkMerges loads small and large objects with different merge settings. docs/reference/benchmarks.md has its
// figures.
func BenchmarkMerges(b *testing.B) {
	for _, settings := range strings.Split(cmp.Or(os.Getenv("PENSTOCK_MERGES"), mergeVariants), ";") {
		for _, size := range []struct{ objects, rows int }{{150, 10_000}, {12, 250_000}} {
			b.Run(fmt.Sprintf("%s/rows=%d", strings.ReplaceAll(settings, " ", ""), size.rows), func(b *testing.B) {
				for b.Loop() {
					sustained{of: pipeline.Partition, objects: size.objects, rows: size.rows, settings: settings,
						calls: os.Getenv("PENSTOCK_MERGES_PLAIN") == ""}.run(b)
				}
			})
		}
	}
}

const mergeVariants = "merge_selector_base = 5;merge_selector_base = 12"

// sustained is a load of objects, one after the other.
type sustained struct {
	key           string               // the partition key; empty: the table's own
	of            func(ms int64) int64 // the partition of a time; nil: there is one
	late          int                  // percent of events
	objects, rows int                  // rows of an object
	settings      string               // of the table; empty: its own
	calls         bool                 // with the columns of llm_calls
	wide, keys    int                  // properties of an event, and of how many keys; 0: a game's
}

// BenchmarkWide loads events of many properties. docs/design/clickhouse.md has its figures.
func BenchmarkWide(b *testing.B) {
	for _, settings := range strings.Split(os.Getenv("PENSTOCK_MERGES"), ";") {
		for _, size := range []struct{ objects, rows, wide, keys int }{
			{6, 4000, 1000, 1000}, {6, 3000, 1000, 10_000}, {6, 6000, 100, 10_000}} {
			b.Run(fmt.Sprintf("%s/%d_of_%d", strings.ReplaceAll(settings, " ", ""), size.wide, size.keys), func(b *testing.B) {
				for b.Loop() {
					sustained{of: pipeline.Partition, objects: size.objects, rows: size.rows, settings: settings, wide: size.wide,
						keys: size.keys}.run(b)
				}
			})
		}
	}
}

// properties returns the properties of an event.
func (s sustained) properties(rnd *rand.Rand) string {
	if s.wide == 0 {
		return fmt.Sprintf(`{"level":%d,"score":%d,"country":"c%d","platform":"ios","app_version":"1.%d.0",`+
			`"device":"phone %d","speed":%d.5,"items":[1,2],"coins":%d,"mode":"ranked","map":"m%d"}`, rnd.IntN(40),
			rnd.IntN(100000), rnd.IntN(50), rnd.IntN(9), rnd.IntN(300), rnd.IntN(90), rnd.IntN(1000), rnd.IntN(20))
	}
	text := fmt.Appendf(nil, `{"level":%d,"country":"c%d"`, rnd.IntN(40), rnd.IntN(50)) // usual, and in each event
	first := 0
	if s.keys > s.wide {
		first = rnd.IntN(s.keys)
	}
	for i := range s.wide - 2 {
		key := (first + i) % s.keys
		text = fmt.Appendf(text, `,"p%d":`, key)
		switch key % 4 {
		case 0:
			text = fmt.Append(text, rnd.IntN(1_000_000))
		case 1:
			text = fmt.Appendf(text, `"item %d"`, rnd.IntN(20))
		case 2:
			text = fmt.Appendf(text, "%.2f", rnd.Float64()*1000)
		case 3:
			text = fmt.Append(text, rnd.IntN(2) == 0)
		}
	}
	return string(append(text, '}'))
}

func (s sustained) run(b *testing.B) {
	c := servers.ClickHouse(b)
	opts := Options{Addresses: []string{c.Addr()}, Database: "bench", User: c.User(), Password: c.Password(),
		Timeout: time.Minute, Conns: 2}
	names, err := fs.Glob(sqlfiles.Files, "*.sql")
	if err != nil {
		b.Fatal(err)
	}
	files := fstest.MapFS{}
	for _, name := range names {
		text, err := sqlfiles.Files.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		if from := bytes.Index(text, []byte("PARTITION BY ")); name == "001_events.sql" && s.key != "" {
			to := bytes.Index(text, []byte("ORDER BY (project"))
			text = slices.Concat(text[:from], []byte("PARTITION BY "+s.key+"\n"), text[to:])
		}
		files[name] = &fstest.MapFile{Data: text}
	}
	if _, err := Migrate(b.Context(), opts, files, func(string) {}); err != nil {
		b.Fatal(err)
	}
	db, err := Open(opts)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if s.calls {
		var columns []Computed
		for _, c := range llm.Columns() {
			columns = append(columns, Computed(c))
		}
		if _, err := db.SetComputed(b.Context(), "events", columns); err != nil {
			b.Fatal(err)
		}
	}
	if s.wide > 0 {
		if _, err := db.SetMerges(b.Context(), "events"); err != nil {
			b.Fatal(err)
		}
	}
	if s.settings != "" {
		if err := db.exec(b.Context(), "set settings", "ALTER TABLE events MODIFY SETTING "+s.settings); err != nil {
			b.Fatal(err)
		}
	}
	before := cpuOf(b, c.Pid)
	rnd := rand.New(rand.NewPCG(1, uint64(s.late)))
	inserts := 0
	for o := range s.objects {
		inserts += s.load(b, db, o, rnd)
	}
	for quiet := 0; quiet < 5; quiet++ {
		time.Sleep(200 * time.Millisecond)
		if n, err := db.Merges(b.Context()); err != nil {
			b.Fatal(err)
		} else if n > 0 {
			quiet = 0
		}
	}
	rows := float64(s.objects * s.rows)
	b.ReportMetric((cpuOf(b, c.Pid)-before).Seconds()/rows*1e6, "cpu-s/M")
	b.ReportMetric(float64(inserts)/float64(s.objects), "inserts/object")
	ask := func(metric, query string) uint64 {
		var n uint64
		if err := db.one(b.Context(), metric, []any{&n}, query); err != nil {
			b.Fatal(err)
		}
		return n
	}
	b.ReportMetric(float64(ask("parts", "SELECT count() FROM system.parts WHERE active AND database = 'bench'")), "parts")
	b.ReportMetric(float64(ask("merged", "SELECT sum(value) FROM system.events WHERE event = 'MergedRows'"+
		" SETTINGS system_events_show_zero_values = 1"))/rows, "merged/row")
	if s.wide > 0 {
		began := cpuOf(b, c.Pid)
		if err := db.exec(b.Context(), "merge", "OPTIMIZE TABLE events FINAL"); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric((cpuOf(b, c.Pid)-began).Seconds()/rows*1e6, "merge-s/M")
		b.ReportMetric(float64(ask("disk", "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'bench'"))/
			rows, "disk-B/row")
		for _, q := range []struct{ metric, query string }{
			{"usual-cpu-ms", "SELECT sum(toUInt64(properties.level.:Int64)) FROM events"},
			{"other-cpu-ms", "SELECT sum(toUInt64(properties.p700.:Int64)) FROM events"},
			{"name-cpu-ms", "SELECT sum(length(toString(properties))) FROM events WHERE name = 'event_1' AND object_row < 1000"},
		} {
			began := cpuOf(b, c.Pid)
			for range 3 {
				ask(q.metric, q.query)
			}
			b.ReportMetric((cpuOf(b, c.Pid)-began).Seconds()*333, q.metric)
		}
		return
	}
	began := cpuOf(b, c.Pid)
	for range 5 {
		ask("count", "SELECT count() FROM events FINAL")
	}
	b.ReportMetric((cpuOf(b, c.Pid)-began).Seconds()*200, "final-cpu-ms")
	began = cpuOf(b, c.Pid)
	for range 5 {
		ask("last day", fmt.Sprintf("SELECT count() FROM (SELECT name, toStartOfHour(identity_time) AS h, uniq(user_id) FROM"+
			" events FINAL WHERE identity_time >= fromUnixTimestamp64Milli(%d) GROUP BY name, h)", noon))
	}
	b.ReportMetric((cpuOf(b, c.Pid)-began).Seconds()*200, "lastday-cpu-ms")
}

// load inserts an object of the next minutes, and returns the number of blocks.
func (s sustained) load(b *testing.B, db *DB, o int, rnd *rand.Rand) int {
	events, picks := make([]pipeline.Event, s.rows), map[int64][]uint32{}
	for i := range events {
		e := &events[i]
		*e = event(o*s.rows+i, s.properties(rnd))
		e.ReceivedAt = noon + int64(o)*90_000 + int64(i)*90_000/int64(s.rows)
		if e.Timestamp = e.ReceivedAt - rnd.Int64N(3000); rnd.IntN(100) < s.late {
			e.Timestamp -= rnd.Int64N(30 * day)
		}
		e.ID, e.Row = pipeline.NewUUIDv7(e.Timestamp), uint32(i)
		e.Name = fmt.Append(nil, "event_", rnd.IntN(12))
		e.UserID, e.SessionID = fmt.Append(nil, "user-", rnd.IntN(200_000)), fmt.Append(nil, "session-", rnd.IntN(400_000))
		p := int64(0)
		if s.of != nil {
			p = s.of(e.Timestamp)
		}
		picks[p] = append(picks[p], uint32(i))
	}
	object := fmt.Sprint("events/", o)
	for p, pick := range picks {
		block, err := db.NewBlock(b.Context(), "events", object, 0)
		if err != nil {
			b.Fatal(err)
		}
		block.Append(events, nil, pick)
		if err := block.Insert(context.Background(), fmt.Sprint(object, p), nil); err != nil {
			b.Fatal(err)
		}
	}
	return len(picks)
}

func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	groups, err := load.Groups()
	if err != nil {
		b.Fatal(err)
	}
	return groups[pid].CPU
}
