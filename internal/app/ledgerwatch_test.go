package app

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// largeLedger takes a while to count what is loaded.
type largeLedger struct {
	takes         time.Duration
	asked, counts int
	loaded        clickhouse.LoadedStatus
	rest          clickhouse.LedgerStatus
}

func (l *largeLedger) LedgerStatus(context.Context) (map[string]clickhouse.LedgerStatus, error) {
	l.asked++
	return map[string]clickhouse.LedgerStatus{"events": l.rest}, nil
}

func (l *largeLedger) LoadedStatus(context.Context) (map[string]clickhouse.LoadedStatus, error) {
	l.counts++
	time.Sleep(l.takes)
	return map[string]clickhouse.LoadedStatus{"events": l.loaded}, nil
}

// The states that alerts need are read at every look. Counting what is loaded takes a 5000th of the time at most.
func TestLedgerWatchIsCheap(t *testing.T) {
	for _, c := range []struct {
		takes  time.Duration
		counts int // in an hour, which has 240 looks
	}{{time.Millisecond, 240}, {60 * time.Millisecond, 12}, {2 * time.Second, 6}} {
		bubble.Test(t, func(t *testing.T) {
			l := &largeLedger{takes: c.takes}
			w := newLedgerWatch(&outlet{process: process{reg: prometheus.NewRegistry()}})
			w.db, w.every = l, ledgerEvery
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour-time.Second)
			defer cancel()
			w.run(ctx)
			if l.asked < 239 || l.counts > c.counts || l.counts < c.counts-1 {
				t.Errorf("a count of %s: %d looks, %d counts, want 240 and %d", c.takes, l.asked, l.counts, c.counts)
			}
		})
	}
}

// quickQueue answers at once.
type quickQueue struct{ queue.Queue }

func (quickQueue) Stats(ctx context.Context, _ pipeline.Spec) (queue.Stats, error) {
	return queue.Stats{Pending: 7}, ctx.Err()
}

// hungLedger does not answer.
type hungLedger struct{ largeLedger }

func (*hungLedger) LedgerStatus(ctx context.Context) (map[string]clickhouse.LedgerStatus, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A ClickHouse that hangs does not make the queue look unreachable.
func TestQueueBesideHungClickHouse(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		w := newLedgerWatch(&outlet{process: process{reg: reg}})
		w.db, w.queue = &hungLedger{}, quickQueue{}
		w.look(t.Context())
		got := gauges(t, reg, "penstock_")
		want := map[string]float64{"clickhouse_available": 0, "queue_available": 1, "queue_pending_messages events": 7,
			"queue_pending_messages errors": 7, "queue_in_flight_messages events": 0, "queue_in_flight_messages errors": 0}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

// gauges are the values of metrics whose names have a prefix, by the rest of the name and the value of a label.
func gauges(t *testing.T, reg *prometheus.Registry, prefix string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		name, ok := strings.CutPrefix(f.GetName(), prefix)
		if !ok {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				got[name+" "+l.GetValue()] = m.GetGauge().GetValue()
			}
			if len(m.GetLabel()) == 0 {
				got[name] = m.GetGauge().GetValue()
			}
		}
	}
	return got
}

// The events of a dead letter are settled: no alert waits for their rows.
func TestSettledMetric(t *testing.T) {
	reg := prometheus.NewRegistry()
	w := newLedgerWatch(&outlet{process: process{reg: reg}})
	w.db = &largeLedger{loaded: clickhouse.LoadedStatus{Objects: 7, Newest: 5000},
		rest: clickhouse.LedgerStatus{Objects: [pipeline.LoadStates]uint64{pipeline.Dead: 2}, Settled: 9000}}
	w.look(t.Context())
	got := gauges(t, reg, "penstock_loader_newest_")
	want := map[string]float64{"row_timestamp_seconds events": 5, "row_timestamp_seconds errors": 0,
		"settled_timestamp_seconds events": 9, "settled_timestamp_seconds errors": 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
