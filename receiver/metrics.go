package receiver

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/receiver/tenant"
)

// Bounds of the label project, whose values come from a file of the operator.
const (
	maxProjects   = 200     // with separate values
	otherProjects = "other" // the value of all others
)

type metrics struct {
	events, bytes     *prometheus.CounterVec // by project and protocol, as are the next three
	rejected, refused *prometheus.CounterVec
	requests          *prometheus.CounterVec
	limited           *prometheus.CounterVec
	sampled, redacted *prometheus.CounterVec
	violations        *prometheus.CounterVec
	repaired          *prometheus.CounterVec // shared with whoever repairs events of files
	seconds           prometheus.Histogram

	mu     sync.Mutex
	labels map[string]bool // projects with separate values
	known  map[[2]string]*series
}

// series are the counters of one project and protocol that most requests need. They are looked up once.
type series struct {
	project, protocol string // as they are, not as the labels have them
	events, bytes     prometheus.Counter
	ok                [2]prometheus.Counter // requests with the status 200 and 202
}

func newMetrics(reg prometheus.Registerer) *metrics {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	m := &metrics{labels: map[string]bool{}, known: map[[2]string]*series{},
		events: vec("events_total", "Events accepted.", "project", "protocol"),
		bytes:  vec("body_bytes_total", "Bytes of bodies, decompressed.", "project", "protocol"),
		rejected: vec("rejected_events_total", "Events rejected, by error code.",
			"project", "protocol", "code"),
		refused: vec("rejected_requests_total", "Requests rejected as a whole, by error code.",
			"project", "protocol", "code"),
		requests: vec("requests_total", "Requests, by status. Without a project: its key is not known, or none is needed. "+
			"Without a protocol: nothing has its path.", "project", "protocol", "status"),
		violations: vec("schema_violations_total",
			"Events whose properties do not fit their schema, rejected or only reported, by the event's name.", "event"),
		limited: vec("limited_requests_total",
			"Requests rejected for now (429), by project and by the limit that it exceeded.", "project", "limit"),
		sampled: vec("sampled_events_total", "Events left out by their project's sample.", "project"),
		redacted: vec("redacted_values_total",
			"Values of events that were dropped or hashed, by their project's path and what was done.",
			"project", "path", "done"),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "penstock_receiver_request_duration_seconds",
			Help:    "Time from a request's head to its answer.",
			Buckets: []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2.5, 10, 60}}),
	}
	m.repaired = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_repaired_events_total",
		Help: "Events that were accepted after something in them was replaced, by the reason."}, []string{"reason"})
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](reg.Register(m.repaired)); ok {
		m.repaired = there.ExistingCollector.(*prometheus.CounterVec)
	}
	m.repaired.WithLabelValues(repairedLoneSurrogate)
	reg.MustRegister(m.seconds)
	return m
}

// label is a project's value of the label project. mu is held.
func (m *metrics) label(project string) string {
	switch {
	case project == "" || m.labels[project]:
		return project
	case len(m.labels) == maxProjects:
		return otherProjects
	}
	m.labels[project] = true
	return project
}

// of is a project's value of the label project.
func (m *metrics) of(project string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.label(project)
}

// series returns the counters of a project and a protocol, which begin at 0.
func (m *metrics) series(project, protocol string) *series {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [2]string{project, protocol}
	s := m.known[key]
	if s == nil {
		p := m.label(project)
		s = &series{project: project, protocol: protocol, events: m.events.WithLabelValues(p, protocol),
			bytes: m.bytes.WithLabelValues(p, protocol),
			ok: [2]prometheus.Counter{m.requests.WithLabelValues(p, protocol, "200"),
				m.requests.WithLabelValues(p, protocol, "202")}}
		m.known[key] = s
	}
	return s
}

// begin lets the counters of projects begin at 0, so that the first increase is seen.
func (m *metrics) begin(keys []tenant.Key, protocol string) {
	for _, k := range keys {
		m.series(k.Project, protocol)
	}
}

// protocol is the name of the request's protocol; empty: nothing has its path.
func (q *request) protocol() string {
	if q.lost {
		return ""
	}
	return q.route.Name
}

// counters returns the series of the request's project and protocol. Request objects are reused, mostly for the same
// ones.
func (q *request) counters() *series {
	if s := q.series; s == nil || s.project != q.key.Project || s.protocol != q.protocol() {
		q.series = q.r.metrics.series(q.key.Project, q.protocol())
	}
	return q.series
}

// countCode counts n rejections of events or requests.
func (q *request) countCode(of *prometheus.CounterVec, code string, n int) {
	of.WithLabelValues(q.r.metrics.of(q.key.Project), q.protocol(), code).Add(float64(n))
}

func (m *metrics) observe(status int, q *request, took time.Duration) {
	s := q.counters()
	switch status {
	case 200:
		s.ok[0].Inc()
	case 202:
		s.ok[1].Inc()
	default:
		m.requests.WithLabelValues(m.of(s.project), s.protocol, strconv.Itoa(status)).Inc()
	}
	m.seconds.Observe(took.Seconds())
	s.bytes.Add(float64(len(q.body)))
	if status < 300 {
		s.events.Add(float64(q.accepted))
		if q.sampled > 0 {
			m.sampled.WithLabelValues(m.of(q.key.Project)).Add(float64(q.sampled))
		}
		if q.repaired > 0 {
			m.repaired.WithLabelValues(repairedLoneSurrogate).Add(float64(q.repaired))
		}
		for _, rule := range q.rows.Applied {
			q.tenant.Edits.applied[rule].Inc()
		}
	}
}
