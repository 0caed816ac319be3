package loader

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
)

type metrics struct {
	rows, refused, views, bytes, failures, outages, receiveErrors, unfinished prometheus.Counter
	results, ignored, repaired                                                *prometheus.CounterVec
	seconds                                                                   prometheus.Histogram
	broken                                                                    prometheus.Gauge
}

func newMetrics(spec pipeline.Spec, reg prometheus.Registerer) *metrics {
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": spec.Name}, reg)
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_loader_" + name, Help: help})
		reg.MustRegister(c)
		return c
	}
	vec := func(name, label, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_loader_" + name, Help: help}, []string{label})
		reg.MustRegister(c)
		return c
	}
	m := &metrics{
		views: counter("view_failures_total",
			"Chunks that are in the table and that a materialized view behind it refused."),
		refused:       counter("refused_rows_total", "Rows that the table refused; they are in errors."),
		rows:          counter("rows_total", "Rows of the objects loaded."),
		bytes:         counter("bytes_total", "Bytes of objects fetched."),
		failures:      counter("failures_total", "Attempts that failed through the object's own fault."),
		unfinished:    counter("unfinished_attempts_total", "Attempts of killed loaders that were found in the ledger."),
		outages:       counter("outages_total", "Times that loading stopped because the table or the store was away."),
		receiveErrors: counter("receive_errors_total", "Receives from the queue that failed."),
		results: vec("objects_total", "result",
			"Deliveries of objects, by result: loaded, already, failed, dead, dropped."),
		ignored: vec("ignored_total", "reason",
			"Notifications settled without a load: test, unparsable, foreign (of another pipeline), not_data (temporary "+
				"files and folders)."),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_loader_load_seconds",
			Help: "Time from a delivery to the ledger.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 15)}),
		broken: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_loader_broken",
			Help: "1 while nothing can be loaded."}),
	}
	m.repaired = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_events_repaired_total",
		Help: "Events that were accepted with a repair, by reason: lone_surrogate."}, []string{"reason"})
	reg.MustRegister(m.seconds, m.broken, m.repaired)
	return m
}

func (m *metrics) setBroken(b bool) {
	if b {
		m.broken.Set(1)
	} else {
		m.broken.Set(0)
	}
}
