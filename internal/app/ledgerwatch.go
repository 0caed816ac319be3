package app

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader"
)

const (
	ledgerEvery = 15 * time.Second // between two looks at ledger and queue
	ledgerWait  = 10 * time.Second // for their answers
	// Counting what is loaded reads the whole ledger. So it waits for loadedShare times as long as the last count took.
	loadedShare = 5000
	loadedMost  = 10 * time.Minute
)

// ledgerReader answers questions about the load ledger: a clickhouse.DB.
type ledgerReader interface {
	LedgerStatus(ctx context.Context) (map[string]clickhouse.LedgerStatus, error)
	LoadedStatus(ctx context.Context) (map[string]clickhouse.LoadedStatus, error)
}

// ledgerWatch looks at the load ledger and the queue, so that metrics say what waits and what failed. A metric has no
// value until the first answer, and keeps the last one during an outage.
type ledgerWatch struct {
	db      ledgerReader
	queue   queue.Queue // nil: storage.notify is none
	loaders []*loader.Loader
	log     *slog.Logger
	every   time.Duration

	clickhouse, queueUp                *prometheus.Desc
	objects, newest, settled, verified *prometheus.Desc
	pending, inFlight                  *prometheus.Desc
	recount                            time.Time // when to count what is loaded again

	mu       sync.Mutex
	asked    [2]bool // ClickHouse, the queue
	failed   [2]bool // likewise: the last time
	ledger   map[string]clickhouse.LedgerStatus
	loaded   map[string]clickhouse.LoadedStatus
	messages map[string]queue.Stats
}

func newLedgerWatch(o *outlet) *ledgerWatch {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("penstock_"+name, help, labels, nil)
	}
	w := &ledgerWatch{db: o.db, queue: o.queue, loaders: o.loaders, log: o.log, every: watchEvery(ledgerEvery),
		clickhouse: desc("clickhouse_available", "1 if ClickHouse answered the last question about the load ledger, else 0. "+
			"A loader asks every 15 s."),
		queueUp: desc("queue_available", "1 if the queue answered the last question, else 0. A loader asks every 15 s."),
		objects: desc("ledger_objects", "Objects in the load ledger, by state: loading, failed (to be tried again), dead, "+
			"dropped, loaded. With a large ledger, loaded is counted every 10 minutes only.", "pipeline", "state"),
		newest: desc("loader_newest_row_timestamp_seconds",
			"Unix time at which the newest event in the table was received; 0: there is none.", "pipeline"),
		settled: desc("loader_newest_settled_timestamp_seconds",
			"Unix time at which the newest event was received that is a row, or whose object is dead or dropped; 0: there is "+
				"none.", "pipeline"),
		verified: desc("verify_last_success_timestamp_seconds",
			"Unix time at which \"penstock verify\" last found no difference; 0: never.", "pipeline"),
		pending:  desc("queue_pending_messages", "Notifications in the queue that no loader has received yet.", "pipeline"),
		inFlight: desc("queue_in_flight_messages", "Notifications that loaders have received and not settled.", "pipeline"),
	}
	o.reg.MustRegister(w)
	return w
}

// run looks until ctx ends.
func (w *ledgerWatch) run(ctx context.Context) {
	for w.look(ctx); retry.Sleep(ctx, w.every) == nil; {
		w.look(ctx)
	}
}

// look asks both at once, so that one that hangs does not delay the other.
func (w *ledgerWatch) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, ledgerWait)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	if w.queue != nil {
		wg.Go(func() { w.count(ctx) })
	}
	ledger, loaded, err := w.read(ctx)
	w.note(0, err, func() { w.ledger, w.loaded = ledger, loaded })
}

// count asks the queue.
func (w *ledgerWatch) count(ctx context.Context) {
	messages := map[string]queue.Stats{}
	var err error
	for _, spec := range pipeline.Specs() {
		var st queue.Stats
		if st, err = w.queue.Stats(ctx, spec); err != nil {
			break
		}
		messages[spec.Name] = st
	}
	w.note(1, err, func() { w.messages = messages })
}

// read asks about the ledger. What is loaded it counts now and then.
func (w *ledgerWatch) read(ctx context.Context) (map[string]clickhouse.LedgerStatus, map[string]clickhouse.LoadedStatus,
	error) {
	ledger, err := w.db.LedgerStatus(ctx)
	began := time.Now()
	if err != nil || began.Before(w.recount) {
		return ledger, w.loaded, err
	}
	loaded, err := w.db.LoadedStatus(ctx)
	if err == nil {
		w.recount = time.Now().Add(min(loadedMost, loadedShare*time.Since(began)))
	}
	return ledger, loaded, err
}

// note keeps an answer. Why there is none, the loader logs: it needs both.
func (w *ledgerWatch) note(of int, err error, keep func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[of], w.failed[of] = true, err != nil
	if err == nil {
		keep()
	}
}

// Describe is the metrics' names.
func (w *ledgerWatch) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{w.clickhouse, w.queueUp, w.objects, w.newest, w.settled, w.verified,
		w.pending, w.inFlight} {
		to <- d
	}
}

// Collect is the metrics' values.
func (w *ledgerWatch) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	w.mu.Lock()
	asked, failed, ledger, loaded, messages := w.asked, w.failed, w.ledger, w.loaded, maps.Clone(w.messages)
	w.mu.Unlock()
	for i, d := range []*prometheus.Desc{w.clickhouse, w.queueUp} {
		if asked[i] {
			gauge(d, map[bool]float64{false: 1}[failed[i]])
		}
	}
	for name, st := range messages {
		gauge(w.pending, float64(st.Pending), name)
		gauge(w.inFlight, float64(st.InFlight), name)
	}
	if ledger == nil {
		return
	}
	newest := map[string]int64{}
	for _, l := range w.loaders {
		st := l.Stats()
		newest[st.Pipeline] = st.Newest
	}
	for _, spec := range pipeline.Specs() {
		st := ledger[spec.Name]
		st.Objects[pipeline.Loaded] = loaded[spec.Name].Objects
		for state, n := range st.Objects {
			gauge(w.objects, float64(n), spec.Name, pipeline.LoadState(state).String())
		}
		row := max(loaded[spec.Name].Newest, newest[spec.Name])
		gauge(w.newest, float64(row)/1000, spec.Name)
		gauge(w.settled, float64(max(row, st.Settled))/1000, spec.Name)
		gauge(w.verified, float64(st.Verified)/1000, spec.Name)
	}
}
