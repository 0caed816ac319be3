package clickhouse

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/testing/servers"
)

// BenchmarkPartitions loads objects into events of several partitions, with events that
// are up to 30 days late, as a loader does: an insert for each partition of an object.
// docs/design/clickhouse.md has its figures.
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
					benchPartitions(b, unit.key, unit.of, late)
				}
			})
		}
	}
}

// objects and objectRows are what is loaded: an hour of a small service.
const (
	objects    = 40
	objectRows = 25_000
)

func benchPartitions(b *testing.B, key string, of func(ms int64) int64, late int) {
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
		if from := bytes.Index(text, []byte("PARTITION BY ")); name == "001_events.sql" {
			to := bytes.Index(text, []byte("ORDER BY (project"))
			text = slices.Concat(text[:from], []byte("PARTITION BY "+key+"\n"), text[to:])
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
	before := cpuOf(b, c.Pid)
	rnd := rand.New(rand.NewPCG(1, uint64(late)))
	inserts := 0
	for o := range objects {
		inserts += loadObject(b, db, o, rnd, of, late)
	}
	for quiet := 0; quiet < 5; quiet++ {
		time.Sleep(200 * time.Millisecond)
		if n, err := db.Merges(b.Context()); err != nil {
			b.Fatal(err)
		} else if n > 0 {
			quiet = 0
		}
	}
	const million = objects * objectRows / 1e6
	b.ReportMetric((cpuOf(b, c.Pid)-before).Seconds()/million, "cpu-s/M")
	b.ReportMetric(float64(inserts)/objects, "inserts/object")
	ask := func(metric, query string) uint64 {
		var n uint64
		if err := db.one(b.Context(), metric, []any{&n}, query); err != nil {
			b.Fatal(err)
		}
		return n
	}
	b.ReportMetric(float64(ask("parts", "SELECT count() FROM system.parts WHERE active AND database = 'bench'")), "parts")
	b.ReportMetric(float64(ask("merged", "SELECT sum(value) FROM system.events WHERE event = 'MergedRows'"+
		" SETTINGS system_events_show_zero_values = 1"))/(objects*objectRows), "merged/row")
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

// loadObject inserts an object of the next minutes, and returns in how many blocks.
func loadObject(b *testing.B, db *DB, o int, rnd *rand.Rand, of func(ms int64) int64, late int) int {
	events, picks := make([]pipeline.Event, objectRows), map[int64][]uint32{}
	for i := range events {
		e := &events[i]
		*e = event(o*objectRows+i, fmt.Sprintf(`{"level":%d,"score":%d,"country":"c%d","platform":"ios","app_version":"1.%d.0",`+
			`"device":"phone %d","speed":%d.5,"items":[1,2],"coins":%d,"mode":"ranked","map":"m%d"}`, rnd.IntN(40),
			rnd.IntN(100000), rnd.IntN(50), rnd.IntN(9), rnd.IntN(300), rnd.IntN(90), rnd.IntN(1000), rnd.IntN(20)))
		e.ReceivedAt = noon + int64(o)*90_000 + int64(i)*90_000/objectRows
		if e.Timestamp = e.ReceivedAt - rnd.Int64N(3000); rnd.IntN(100) < late {
			e.Timestamp -= rnd.Int64N(30 * day)
		}
		e.ID, e.Row = pipeline.NewUUIDv7(e.Timestamp), uint32(i)
		e.Name = fmt.Append(nil, "event_", rnd.IntN(12))
		e.UserID, e.SessionID = fmt.Append(nil, "user-", rnd.IntN(200_000)), fmt.Append(nil, "session-", rnd.IntN(400_000))
		p := int64(0)
		if of != nil {
			p = of(e.Timestamp)
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
