package loader

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
)

type metrics struct {
	rows, refused, views, bytes, failures, outages, receiveErrors, unfinished prometheus.Counter
	results, ignored, repaired                                                *prometheus.CounterVec
	seconds, freshness                                                        prometheus.Histogram
	paused, lastInsert                                                        prometheus.Gauge
}

func newMetrics(spec pipeline.Spec, reg prometheus.Registerer) *metrics {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": spec.Name}, reg)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_loader_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, label, help string, values ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_" + name, Help: help}, []string{label})
		reg.MustRegister(c)
		for _, value := range values {
			c.WithLabelValues(value)
		}
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_loader_" + name, Help: help})
		reg.MustRegister(g)
		return g
	}
	m := &metrics{
		views: counter("view_failures_total",
			"Chunks that are in the table and that a materialized view behind it refused."),
		refused:       counter("refused_rows_total", "Rows that the table refused; they are in errors."),
		rows:          counter("rows_total", "Rows of the objects loaded."),
		bytes:         counter("fetched_bytes_total", "Bytes of objects fetched."),
		failures:      counter("failures_total", "Attempts that failed through the object's own fault."),
		unfinished:    counter("unfinished_attempts_total", "Attempts of killed loaders that were found in the ledger."),
		outages:       counter("outages_total", "Times that loading stopped because the table or the store was away."),
		receiveErrors: counter("receive_errors_total", "Receives from the queue that failed."),
		results: vec("loader_objects_total", "result",
			"Deliveries of objects, by result: loaded, already, failed, dead, dropped.",
			"loaded", "already", "failed", "dead", "dropped"),
		ignored: vec("loader_ignored_total", "reason",
			"Notifications settled without a load: test, unparsable, foreign (of another pipeline), not_data (temporary "+
				"files and folders).", "test", "unparsable", "foreign", "not_data"),
		repaired: vec("repaired_events_total", "reason",
			"Events that were accepted after something in them was replaced, by the reason.", "lone_surrogate"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_loader_load_duration_seconds",
			Help: "Time from a delivery to the ledger.", Buckets: []float64{0.05, 0.2, 1, 5, 20, 60, 300}}),
		freshness: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_loader_freshness_seconds",
			Help: "Time from the receipt of an object's first event until its rows are in the table. An object that is " +
				"loaded again does not count.", Buckets: []float64{1, 10, 30, 60, 100, 180, 300, 600, 1800, 7200}}),
		paused: gauge("paused", "1 while nothing is loaded, because the table or the store is away; else 0."),
		lastInsert: gauge("last_insert_timestamp_seconds",
			"Unix time at which the last object was loaded by this process; 0: none since the start."),
	}
	reg.MustRegister(m.seconds, m.freshness)
	return m
}

func (m *metrics) setPaused(b bool) {
	if b {
		m.paused.Set(1)
	} else {
		m.paused.Set(0)
	}
}
