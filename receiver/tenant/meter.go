package tenant

import (
	"math"
	"sync"
	"time"

	"github.com/penstock/penstock/internal/tokenbucket"
	"github.com/penstock/penstock/receiver/errcode"
)

// meter is what a project has left of its limits. It survives changes of the project's settings.
type meter struct {
	mu            sync.Mutex
	events, bytes tokenbucket.Bucket
	last          shape  // of the smallest request that had too many events of late
	counted       shape  // the last request with counted events; estimates unread ones
	day           string // of used
	used          Used
}

// shape is what a request's head says, and its number of events. Another request of that length is assumed to have the
// same number. So a flood of equal bodies need be neither read nor decoded.
type shape struct {
	bytes    int64
	encoding string
	events   int
}

// estimate is how many events a body of that length probably has; 1 if another says nothing of it.
func (s shape) estimate(bytes int64, encoding string) float64 {
	if s.events == 0 || s.encoding != encoding {
		return 1
	}
	return max(1, float64(s.events)*float64(bytes)/float64(s.bytes))
}

// Limit says which of a project's limits rejects a request, and until when.
type Limit struct {
	Of       string // events or bytes
	PerDay   bool   // it is a quota; else a rate a second
	Limit    int64
	Burst    int64 // at once, of a rate
	Left     int64
	Wait     time.Duration
	project  string
	exceeded errcode.Code
}

// Name is the limit's in metrics.
func (l *Limit) Name() string {
	if l.PerDay {
		return l.Of + " a day"
	}
	return l.Of
}

// Seconds is when the client may come again; rounded up, so that it does not come too early.
func (l *Limit) Seconds() int64 { return max(1, int64(math.Ceil(l.Wait.Seconds()))) }

// Error rejects the request.
func (l *Limit) Error() *errcode.Error {
	if l.PerDay {
		return l.exceeded.Errorf("project %.100q has used its quota of %d %s: send this again after midnight UTC",
			l.project, l.Limit, l.Name())
	}
	return l.exceeded.Errorf("project %.100q is over its rate limit of %d %s a second (%d at once): send this again in "+
		"%d s", l.project, l.Limit, l.Of, l.Burst, l.Seconds())
}

func overRate(p *Project, of string, r Rate, level float64, wait time.Duration) *Limit {
	return &Limit{Of: of, Limit: int64(math.Ceil(r.PerSecond)), Burst: int64(r.Burst), Left: int64(max(0, level)),
		Wait:    wait,
		project: p.Name, exceeded: errcode.RateLimited}
}

func overQuota(p *Project, of string, limit int64, wait time.Duration) *Limit {
	return &Limit{Of: of, PerDay: true, Limit: limit, Wait: wait, project: p.Name, exceeded: errcode.QuotaExceeded}
}

// day is the one that now is in, and how long it still lasts.
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

// wait is a bucket's, where its rate limits anything.
func wait(b *tokenbucket.Bucket, r Rate, n float64, now time.Time) time.Duration {
	if r.PerSecond == 0 {
		return 0
	}
	return b.Wait(r, n, now)
}

// Account is what one request takes of its project's limits. The zero value has no limits.
type Account struct {
	meter    *meter
	project  *Project
	encoding string // of the body
	entered  bool
	bytes    int64
	told     int64 // bytes, by the head
	events   int
}

// Open begins the account of a request of the project; t may be nil.
func (t *Tenant[E]) Open(encoding string) Account {
	if t == nil || t.meter == nil {
		return Account{}
	}
	return Account{meter: t.meter, project: &t.Project, encoding: encoding}
}

// Limited reports whether anything limits the request.
func (a *Account) Limited() bool { return a.meter != nil }

// Entered reports whether the request's bytes were taken.
func (a *Account) Entered() bool { return a.entered }

// Enter takes the bytes of a body whose events are not counted yet, or returns
// the limit that rejects it. The request that crosses a quota is the last one in.
func (a *Account) Enter(bytes int64, now time.Time) *Limit {
	m, p := a.meter, a.project
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if q := p.Quota; q != (Quota{}) {
		today, left := day(now)
		m.turn(today)
		if q.Events > 0 && m.used.Events >= q.Events {
			return overQuota(p, "events", q.Events, left)
		}
		if q.Bytes > 0 && m.used.Bytes >= q.Bytes {
			return overQuota(p, "bytes", q.Bytes, left)
		}
	}
	least, likely := 1.0, m.counted.estimate(bytes, a.encoding)
	if l := m.last; l.events > 0 && bytes >= l.bytes && a.encoding == l.encoding {
		least = float64(l.events)
		likely = l.estimate(bytes, a.encoding)
	}
	if wait(&m.events, p.Events, least, now) > 0 {
		return overRate(p, "events", p.Events, m.events.Level(p.Events, now), wait(&m.events, p.Events, likely, now))
	}
	if w := wait(&m.bytes, p.Bytes, float64(bytes), now); w > 0 {
		return overRate(p, "bytes", p.Bytes, m.bytes.Level(p.Bytes, now), w)
	}
	m.bytes.Take(float64(bytes))
	a.entered, a.bytes, a.told = true, bytes, bytes
	return nil
}

// Grow charges the bytes by which a body is larger than its head said. They are in memory already, so rejecting would
// save nothing: the next requests pay.
func (a *Account) Grow(bytes int64) {
	if a.meter == nil {
		return
	}
	a.meter.mu.Lock()
	a.meter.bytes.Take(float64(bytes - a.bytes))
	a.meter.mu.Unlock()
	a.bytes = bytes
}

// Count takes the events that were found, or returns the limit that rejects them.
func (a *Account) Count(events int, now time.Time) *Limit {
	m, p := a.meter, a.project
	if m == nil || events == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.told > 0 {
		m.counted = shape{a.told, a.encoding, events}
	}
	if w := wait(&m.events, p.Events, float64(events), now); w > 0 {
		if l := m.last; a.told > 0 && (l.events == 0 || a.told < l.bytes || a.encoding != l.encoding) {
			m.last = shape{a.told, a.encoding, events}
		}
		return overRate(p, "events", p.Events, m.events.Level(p.Events, now), w)
	}
	m.events.Take(float64(events))
	if events >= m.last.events {
		m.last = shape{} // they fit by now
	}
	a.events = events
	return nil
}

// Use ends the account of a request whose events were accepted. They count for the day.
func (a *Account) Use(events int, bytes int64, now time.Time) {
	if a.meter == nil {
		return
	}
	today, _ := day(now)
	a.meter.mu.Lock()
	a.meter.turn(today)
	a.meter.used.Events += int64(events)
	a.meter.used.Bytes += bytes
	a.meter.mu.Unlock()
}

// Refund ends the account of a request that the client is to send again.
func (a *Account) Refund() {
	if a.meter == nil {
		return
	}
	a.meter.mu.Lock()
	a.meter.events.GiveBack(float64(a.events))
	a.meter.bytes.GiveBack(float64(a.bytes))
	a.meter.mu.Unlock()
}
