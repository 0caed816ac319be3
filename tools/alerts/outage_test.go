package alerts

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/tools/alerts/dashboards"
)

// outage is what an alert is for.
type outage struct {
	order      int           // of the tests
	within     time.Duration // by the compressed clock, until the alert fires; 0: 3 minutes
	begin, end func(s *stack)
}

var outages = map[string]*outage{
	"PenstockRowsStopped": {order: 1,
		begin: func(s *stack) { s.load.Kill() },
		end:   func(s *stack) { s.spawn(s.load) }},
	"PenstockNothingReceived": {order: 10, // it goes by the hour before

		begin: func(s *stack) { s.every.Store(0) },
		end:   func(s *stack) { s.every.Store(int64(15 * time.Millisecond)) }},
	"PenstockDeadLetters": {order: 3,
		begin: func(s *stack) {
			text := strings.NewReader("no events")
			if _, err := s.bucket.Put(s.t.Context(), deadKey, text, text.Size(), pipeline.Meta{Schema: pipeline.SchemaVersion,
				SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("no events")))}); err != nil {
				s.t.Fatal(err)
			}
		},
		end: func(s *stack) {
			if out, err := s.run("dlq", "drop", deadKey, "--why", "a test", "--yes"); err != nil {
				s.t.Fatalf("%v: %s", err, out)
			}
		}},
	"PenstockRejectedShareUp": {order: 4,
		begin: func(s *stack) { s.wrong.Store(true) },
		end:   func(s *stack) { s.wrong.Store(false) }},
	"PenstockClockOff": {order: 5,
		begin: func(s *stack) { s.ahead.Store(int64(2 * time.Minute)) },
		end:   func(s *stack) { s.ahead.Store(0) }},
	"PenstockWALFilling": {order: 6,
		begin: func(s *stack) { s.large.Store(true) },
		end:   func(s *stack) { s.large.Store(false) }},
	"PenstockRowsLate": {order: 7, within: 30 * time.Minute, // 5 of them are the SLO; the delay is little, so that rows do not stop
		begin: func(s *stack) { s.table.delay.Store(int64(110 * time.Millisecond)) },
		end:   func(s *stack) { s.table.delay.Store(0) }},
	"PenstockClickHouseUnreachable": {order: 8,
		begin: func(s *stack) { s.table.down.Store(true); s.table.cut() },
		end:   func(s *stack) { s.table.down.Store(false) }},
	"PenstockBucketUnreachable": {order: 9,
		begin: func(s *stack) { s.bucketDown.Store(true) },
		end:   func(s *stack) { s.bucketDown.Store(false) }},
}

const deadKey = "events/readme.txt"

// watched is a stack whose metrics are scraped, and the rules over them.
type watched struct {
	*stack
	clock   clock
	store   *teststorage.TestStorage
	engine  *Engine
	targets []*target
}

// Each outage fires its own alert within three minutes, and no other.
func TestOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("needs servers: run without -short")
	}
	w := watch(t, newStack(t))
	w.until("rows arrive, and nothing fires", 30*time.Minute, func(now time.Time) bool {
		got, err := w.engine.query(t.Context(), `penstock_loader_newest_row_timestamp_seconds{pipeline="events"} > 0`, now)
		return err == nil && len(got) == 1 && len(w.engine.Firing()) == 0
	})
	w.run(2 * time.Minute)
	names := slices.SortedFunc(maps.Keys(outages), func(a, b string) int { return outages[a].order - outages[b].order })
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			o := outages[name]
			within := max(o.within, 3*time.Minute)
			began := w.now()
			o.begin(w.stack)
			var took time.Duration
			fired := map[string]bool{}
			for w.now().Sub(began) < within && (took == 0 || o.within == 0) {
				w.step()
				for name := range w.engine.Firing() {
					fired[name] = true
				}
				if fired[name] && took == 0 {
					took = w.now().Sub(began)
				}
			}
			if diff := cmp.Diff([]string{name}, slices.Sorted(maps.Keys(fired))); diff != "" {
				t.Errorf("fired within %s (-want +got):\n%s%s", within, diff, w.state())
			}
			t.Logf("fired after %s", took.Round(time.Second))
			o.end(w.stack)
			w.until("nothing fires after "+name, 40*time.Minute, func(now time.Time) bool {
				late, err := w.engine.query(t.Context(), `penstock:freshness_seconds{pipeline="events"} > 90`, now)
				return err == nil && len(late) == 0 && len(w.engine.Firing()) == 0
			})
			w.run(2 * time.Minute)
		})
	}
	w.wrong.Store(true) // so that rejections are counted, too
	// Its thousands of series would slow the scrapes before.
	w.targets = append(w.targets, &target{url: w.tableHTTP, name: "clickhouse", names: map[string]bool{}})
	w.run(2 * time.Minute)
	t.Run("dashboards", w.checkDashboards)
}

// onlyWhenUsed are metrics whose series begin with their first use: the project of the stack has no limits and rules.
var onlyWhenUsed = []string{"penstock_receiver_limited_requests_total", "penstock_receiver_sampled_events_total",
	"penstock_receiver_redacted_values_total", "penstock_receiver_quota_used_events"}

// checkDashboards checks that the processes expose each metric that a dashboard names, with the labels that it uses.
func (w *watched) checkDashboards(t *testing.T) {
	queries, err := dashboards.Queries()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queries {
		expr, err := parser.NewParser(parser.Options{}).ParseExpr(q)
		if err != nil {
			t.Fatal(err)
		}
		parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
			v, ok := node.(*parser.VectorSelector)
			if ok && !w.exposed(v, string(page)) {
				t.Errorf("no process exposes %s, of the query %s", v, q)
			}
			return nil
		})
		if _, err := w.engine.query(t.Context(), q, w.now()); err != nil {
			t.Errorf("%s: %v", q, err)
		}
	}
}

// exposed reports whether a process exposes what a selector selects.
func (w *watched) exposed(v *parser.VectorSelector, page string) bool {
	switch {
	case v.Name == "ALERTS": // Prometheus makes it
		return true
	case slices.Contains(onlyWhenUsed, v.Name):
		return strings.Contains(page, "| `"+v.Name+"` |")
	case strings.HasSuffix(v.Name, "_bucket"): // they are not stored
		return slices.ContainsFunc(w.targets, func(tg *target) bool { return tg.names[v.Name] })
	}
	now := parser.VectorSelector{Name: v.Name, LabelMatchers: v.LabelMatchers}
	got, err := w.engine.query(w.t.Context(), now.String(), w.now())
	return err == nil && len(got) > 0
}

func watch(t *testing.T, s *stack) *watched {
	w := &watched{stack: s, clock: clock{time.Now()}, store: teststorage.New(t),
		targets: []*target{{url: "http://" + s.receive.admin, name: "receiver", names: map[string]bool{}},
			{url: "http://" + s.load.admin, name: "loader", names: map[string]bool{}}}}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e7, Timeout: time.Minute, EnableAtModifier: true,
		EnableNegativeOffset: true, Parser: parser.NewParser(parser.Options{})})
	t.Cleanup(func() { engine.Close() })
	var err error
	if w.engine, err = NewEngine(engine, w.store, rulesFile); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *watched) now() time.Time { return w.clock.at(time.Now()) }

// step scrapes and evaluates once, 15 s after the last time.
func (w *watched) step() {
	w.t.Helper()
	time.Sleep(15 * time.Second / speed)
	for _, tg := range w.targets {
		if err := w.clock.scrape(context.Background(), w.store, tg); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.engine.Eval(context.Background(), w.now()); err != nil {
		w.t.Fatal(err)
	}
}

// run goes on for a while.
func (w *watched) run(d time.Duration) {
	w.t.Helper()
	for began := w.now(); w.now().Sub(began) < d; {
		w.step()
	}
}

// until goes on until something is so.
func (w *watched) until(what string, most time.Duration, so func(now time.Time) bool) {
	w.t.Helper()
	began := w.now()
	for w.step(); !so(w.now()); w.step() {
		if w.now().Sub(began) > most {
			w.t.Fatalf("not within %s: %s%s", most, what, w.state())
		}
	}
}

// state is what the rules go by, for messages.
func (w *watched) state() string {
	var b strings.Builder
	for _, q := range []string{"ALERTS", "penstock:freshness_seconds", "penstock_bucket_available", "penstock_clickhouse_available",
		"penstock_batcher_newest_event_timestamp_seconds", "penstock_loader_newest_row_timestamp_seconds",
		"penstock_batcher_wal_used_ratio", "penstock:project_rejected:ratio3m", "penstock_queue_pending_messages"} {
		got, err := w.engine.query(context.Background(), q, w.now())
		if err != nil {
			b.WriteString("\n" + err.Error())
		}
		for _, s := range got {
			b.WriteString("\n" + s.String())
		}
	}
	return b.String() + "\n" + w.receive.LogTail() + "\n" + w.load.LogTail()
}
