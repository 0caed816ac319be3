package receiver

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	events, bytes     prometheus.Counter
	rejected, refused *prometheus.CounterVec
	requests, limited *prometheus.CounterVec
	sampled, redacted *prometheus.CounterVec
	violations        *prometheus.CounterVec
	repaired          *prometheus.CounterVec // shared with whoever repairs events of files
	ok                [2]prometheus.Counter  // of requests: 200 and 202, looked up once
	seconds           prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		events: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_receiver_events_total",
			Help: "Events accepted."}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_receiver_bytes_total",
			Help: "Bytes of bodies, decompressed."}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_rejected_total",
			Help: "Events refused, by code."}, []string{"code"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_refused_total",
			Help: "Requests refused as a whole, by code."}, []string{"code"}),
		violations: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_schema_violations_total",
			Help: "Events whose properties do not fit their schema, refused or only reported, by the event's name."},
			[]string{"event"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_requests_total",
			Help: "Requests, by status."}, []string{"status"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_limited_total",
			Help: "Requests refused for now (429), by project and by what it has sent too much of."},
			[]string{"project", "limit"}),
		sampled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_sampled_total",
			Help: "Events left out by their project's sample."}, []string{"project"}),
		redacted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_redacted_total",
			Help: "Values of events that were dropped or hashed, by their project's path and what was done."},
			[]string{"project", "path", "done"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_receiver_request_seconds",
			Help: "Time from a request's head to its answer.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18)}),
	}
	m.ok = [2]prometheus.Counter{m.requests.WithLabelValues("200"), m.requests.WithLabelValues("202")}
	m.repaired = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_events_repaired_total",
		Help: "Events that were accepted after something in them was replaced, by the reason."}, []string{"reason"})
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](reg.Register(m.repaired)); ok {
		m.repaired = there.ExistingCollector.(*prometheus.CounterVec)
	}
	reg.MustRegister(m.events, m.bytes, m.rejected, m.refused, m.requests, m.limited, m.sampled, m.redacted, m.violations,
		m.seconds)
	return m
}

func (m *metrics) observe(status int, q *request, took time.Duration) {
	switch status {
	case 200:
		m.ok[0].Inc()
	case 202:
		m.ok[1].Inc()
	default:
		m.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	}
	m.seconds.Observe(took.Seconds())
	m.bytes.Add(float64(len(q.body)))
	if status < 300 {
		m.events.Add(float64(q.accepted))
		if q.sampled > 0 {
			m.sampled.WithLabelValues(q.key.Project).Add(float64(q.sampled))
		}
		if q.repaired > 0 {
			m.repaired.WithLabelValues(repairedLoneSurrogate).Add(float64(q.repaired))
		}
		for _, rule := range q.rows.Applied {
			q.tenant.Edits.applied[rule].Inc()
		}
	}
}
