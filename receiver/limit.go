package receiver

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Rate is how much a project may send a second, and how much at once after a
// pause.
type Rate struct{ PerSecond, Burst float64 } // PerSecond 0: there is no limit

// Quota is how much a project may send on a day in UTC.
type Quota struct{ Events, Bytes int64 } // 0: there is no limit

// Usage is what projects with a quota have sent on a day.
type Usage struct {
	Day      string          `json:"day"` // 2026-11-22, in UTC
	Projects map[string]Used `json:"projects"`
}

// Used is that of one project.
type Used struct {
	Events int64 `json:"events"`
	Bytes  int64 `json:"bytes"`
}

// meter is what a project has left. It stays when the project's settings change.
type meter struct {
	mu            sync.Mutex
	events, bytes bucket
	last          shape  // of the smallest request that had too many events of late
	day           string // of used
	used          Used
}

// shape is what a request's head tells of it, and how many events were found in
// it. Another that is as long is taken to have as many: of a flood, which sends
// the same again and again, bodies need be neither read nor decoded.
type shape struct {
	bytes    int64
	encoding string
	events   int
}

// bucket is filled by time and emptied by what is sent. A request that is larger
// than all of it is let through when it is full, and makes a debt.
type bucket struct {
	left float64
	last time.Time // when it was filled; zero: it is full
}

func (b *bucket) fill(r Rate, now time.Time) {
	if b.last.IsZero() {
		b.left = r.Burst
	}
	b.left = min(r.Burst, b.left+now.Sub(b.last).Seconds()*r.PerSecond)
	b.last = now
}

// wait is how long it takes until n fit in; 0: they do.
func (b *bucket) wait(r Rate, n float64, now time.Time) time.Duration {
	if r.PerSecond == 0 {
		return 0
	}
	b.fill(r, now)
	const rounding = 1e-6
	missing := min(n, r.Burst) - b.left
	if missing < rounding {
		return 0
	}
	return time.Duration(math.Ceil(missing / r.PerSecond * float64(time.Second)))
}

// limited says which of a project's limits keeps a request out.
type limited struct {
	of    string // events or bytes
	limit int64  // a second, or a day
	burst int64  // at once; 0: it is a quota
	left  int64
	wait  time.Duration
}

func (l *limited) name() string {
	if l.burst == 0 {
		return l.of + " a day"
	}
	return l.of
}

// seconds are told to the client, who shall not come too early.
func (l *limited) seconds() int64 { return max(1, int64(math.Ceil(l.wait.Seconds()))) }

func newLimited(of string, r Rate, b *bucket, wait time.Duration) *limited {
	return &limited{of, int64(math.Ceil(r.PerSecond)), int64(r.Burst), int64(max(0, b.left)), wait}
}

// day is the one that now is in, and how long it still is.
func day(now time.Time) (day string, left time.Duration) {
	now = now.UTC()
	return now.Format(time.DateOnly), now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)
}

// turn begins a new day.
func (m *meter) turn(today string) {
	if m.day != today {
		m.day, m.used = today, Used{}
	}
}

// enter takes n bytes for a request that has events, how many is not known yet;
// or it says why not. The request that crosses a quota is the last one in.
func (m *meter) enter(p *Project, n int64, encoding string, now time.Time) *limited {
	m.mu.Lock()
	defer m.mu.Unlock()
	if q := p.Quota; q != (Quota{}) {
		today, left := day(now)
		m.turn(today)
		if q.Events > 0 && m.used.Events >= q.Events {
			return &limited{"events", q.Events, 0, 0, left}
		}
		if q.Bytes > 0 && m.used.Bytes >= q.Bytes {
			return &limited{"bytes", q.Bytes, 0, 0, left}
		}
	}
	least, likely := 1.0, 1.0
	if l := m.last; l.events > 0 && n >= l.bytes && encoding == l.encoding {
		least = float64(l.events)
		likely = least * float64(n) / float64(l.bytes)
	}
	if m.events.wait(p.Events, least, now) > 0 {
		return newLimited("events", p.Events, &m.events, m.events.wait(p.Events, likely, now))
	}
	if wait := m.bytes.wait(p.Bytes, float64(n), now); wait > 0 {
		return newLimited("bytes", p.Bytes, &m.bytes, wait)
	}
	m.bytes.left -= float64(n)
	return nil
}

// more takes what a body is larger than its head said. It is in memory by now,
// so that to refuse it would spare nothing: the next requests pay.
func (m *meter) more(n int64) {
	m.mu.Lock()
	m.bytes.left -= float64(n)
	m.mu.Unlock()
}

// takeEvents takes those of a request whose head told so many bytes; 0: none.
func (m *meter) takeEvents(p *Project, n int, bytes int64, encoding string, now time.Time) *limited {
	m.mu.Lock()
	defer m.mu.Unlock()
	if wait := m.events.wait(p.Events, float64(n), now); wait > 0 {
		if l := m.last; bytes > 0 && (l.events == 0 || bytes < l.bytes || encoding != l.encoding) {
			m.last = shape{bytes, encoding, n}
		}
		return newLimited("events", p.Events, &m.events, wait)
	}
	m.events.left -= float64(n)
	if n >= m.last.events {
		m.last = shape{} // they fit by now
	}
	return nil
}

// giveBack undoes what was taken for a request of which nothing was taken.
func (m *meter) giveBack(events int, bytes int64) {
	m.mu.Lock()
	m.events.left += float64(events)
	m.bytes.left += float64(bytes)
	m.mu.Unlock()
}

func (m *meter) use(events int, bytes int64, now time.Time) {
	today, _ := day(now)
	m.mu.Lock()
	m.turn(today)
	m.used.Events += int64(events)
	m.used.Bytes += bytes
	m.mu.Unlock()
}

// Usage is what projects have sent of their quotas today.
func (r *Receiver) Usage() Usage {
	today, _ := day(time.Now())
	u := Usage{Day: today, Projects: map[string]Used{}}
	r.tenants.set.Lock()
	defer r.tenants.set.Unlock()
	for name, m := range r.tenants.meters {
		m.mu.Lock()
		if m.day == today && m.used != (Used{}) {
			u.Projects[name] = m.used
		}
		m.mu.Unlock()
	}
	return u
}

// SetUsage goes on from what an earlier receiver has counted. What is of another
// day counts no more.
func (r *Receiver) SetUsage(u Usage) {
	r.tenants.set.Lock()
	defer r.tenants.set.Unlock()
	for name, used := range u.Projects {
		m := r.tenants.meter(name)
		m.mu.Lock()
		m.day, m.used = u.Day, used
		m.mu.Unlock()
	}
}

// meter is that of a project, from its first limit on. tenants.set is held.
func (t *tenants) meter(project string) *meter {
	m := t.meters[project]
	if m == nil {
		m = &meter{}
		t.meters[project] = m
	}
	return m
}

// taken is what a request has taken from its project's meter.
type taken struct {
	entered bool
	bytes   int64
	told    int64 // of bytes, by the head
	events  int
}

// meter is that of the request's project; nil where nothing limits it, as an
// operator's redrive.
func (q *request) meter() *meter {
	if q.tenant == nil || q.redrive != nil {
		return nil
	}
	return q.tenant.meter
}

// admitHead decides by the request's head alone whether its body is read: size is
// its length, negative where that is not known.
func (q *request) admitHead(size int64) *refusal {
	if err := q.fits(size); err != nil {
		return err
	}
	m := q.meter()
	if m == nil {
		return nil
	}
	size = max(size, 0)
	if l := m.enter(&q.tenant.Project, size, q.encoding, time.Now()); l != nil {
		return q.refuseNow(l)
	}
	q.taken = taken{entered: true, bytes: size, told: size}
	return nil
}

// admitBody decides by the body, once it is read and its key is known.
func (q *request) admitBody() *refusal {
	size := int64(len(q.body))
	if err := q.copied(size); err != nil {
		return err
	}
	if q.meter() != nil && !q.taken.entered { // the key stood in the body
		return q.admitHead(size)
	}
	if m := q.meter(); m != nil {
		m.more(size - q.taken.bytes)
		q.taken.bytes = size
	}
	return q.fits(size)
}

// fits holds a body to what its key may send.
func (q *request) fits(size int64) *refusal {
	if !q.key.Small || size <= q.r.opts.SmallBody {
		return nil
	}
	return refuse(http.StatusRequestEntityTooLarge, "body_too_large", "this key may send bodies of %d bytes: send fewer events at once, or have the key made for large ones", q.r.opts.SmallBody)
}

// copied makes room for what redaction copies of a body: its values as its
// dialect has them, and later these without what is taken out of them, all before
// large ones leave their rows. What memory cannot hold at all is never taken.
func (q *request) copied(size int64) *refusal {
	if q.tenant == nil || q.tenant.redaction == nil || size <= int64(q.r.opts.BlobThreshold) {
		return nil
	}
	if limit := q.r.opts.MaxMemory / 2; size > limit {
		return refuse(http.StatusRequestEntityTooLarge, "body_too_large", "the body has %d bytes, the limit is %d for a project of which values are dropped or hashed", size, limit)
	}
	if q.charge(q.charged+size) != nil {
		return busy()
	}
	return nil
}

// countEvents decides by the events that were found, good and refused.
func (q *request) countEvents() *refusal {
	m := q.meter()
	if m == nil || q.index == 0 {
		return nil
	}
	if l := m.takeEvents(&q.tenant.Project, q.index, q.taken.told, q.encoding, time.Now()); l != nil {
		return q.refuseNow(l)
	}
	q.taken.events = q.index
	return nil
}

// settleAccount ends the account of a request: what is answered by "send it again" has
// cost nothing, and what was taken counts for the day.
func (q *request) settleAccount(refused *refusal) {
	m := q.meter()
	switch {
	case m == nil:
	case refused == nil || refused.code == "not_stored_yet":
		m.use(q.accepted, int64(len(q.body)), time.Now())
	case refused.status == http.StatusTooManyRequests || refused.code == "busy" || refused.code == "unavailable":
		m.giveBack(q.taken.events, q.taken.bytes)
	}
}

// refuseNow refuses the request for now. That loses nobody's event.
func (q *request) refuseNow(l *limited) *refusal {
	q.notNow = l
	q.r.metrics.limited.WithLabelValues(q.key.Project, l.name()).Inc()
	if l.burst == 0 {
		return refuse(http.StatusTooManyRequests, "quota_exceeded", "project %.100q has sent the %d %s that it may: send this again tomorrow, by UTC", q.key.Project, l.limit, l.name())
	}
	return refuse(http.StatusTooManyRequests, "rate_limited", "project %.100q may send %d %s a second and %d at once, %d are left: send this again in %d s", q.key.Project, l.limit, l.of, l.burst, l.left, l.seconds())
}

// appendTo writes what an answer says of it.
func (l *limited) appendTo(b []byte) []byte {
	per := "second"
	if l.burst == 0 {
		per = "day"
	}
	b = fmt.Appendf(b, `,"limit":{"of":%q,"per":%q,"limit":%d`, l.of, per, l.limit)
	if l.burst > 0 {
		b = fmt.Appendf(b, `,"burst":%d`, l.burst)
	}
	at := time.Now().Add(time.Duration(l.seconds()) * time.Second).UTC()
	return fmt.Appendf(b, `,"left":%d,"retry_after":%d,"retry_at":%q}`, l.left, l.seconds(), at.Format(pipeline.TimeFormat))
}

// header tells the same to clients that look at headers only.
func (l *limited) header(h http.Header) {
	seconds := strconv.FormatInt(l.seconds(), 10)
	h.Set("Retry-After", seconds)
	h.Set("RateLimit-Limit", strconv.FormatInt(l.limit, 10))
	h.Set("RateLimit-Remaining", strconv.FormatInt(l.left, 10))
	h.Set("RateLimit-Reset", seconds)
}
