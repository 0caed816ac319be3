package receiver

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/receiver/document"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/tenant"
)

// tenants are the keys and projects in use.
type tenants = tenant.Store[*redaction]

func newTenants(keys []tenant.Key, m *metrics) *tenants {
	return tenant.NewStore(keys, func(p *tenant.Project) (*redaction, error) { return newRedaction(p, m) })
}

// SetProjects replaces the keys and projects of the previous call. Options.Keys stay, and so does the used part of
// limits. On an error nothing changes.
func (r *Receiver) SetProjects(projects []tenant.Project, keys []tenant.Key) error {
	if err := r.tenants.Replace(projects, keys); err != nil {
		return err
	}
	r.metrics.begin(keys, r.native.Name)
	return nil
}

// CheckProjects reports why a receiver without other keys would not accept these.
func CheckProjects(projects []tenant.Project, keys []tenant.Key) error {
	return newTenants(nil, newMetrics(prometheus.NewRegistry())).Replace(projects, keys)
}

// Keys is the number of keys in use.
func (r *Receiver) Keys() int { return r.tenants.Keys() }

// Usage is the used part of today's quotas.
func (r *Receiver) Usage() tenant.Usage { return r.tenants.Usage() }

// SetUsage restores the counts of an earlier receiver.
func (r *Receiver) SetUsage(u tenant.Usage) { r.tenants.SetUsage(u) }

// useKey assigns the request to the key's project.
func (r *Receiver) useKey(q *request, key string) *errcode.Error {
	g, err := r.tenants.Find(key, q.now)
	if err != nil {
		return err
	}
	q.key, q.tenant = g.Key, g.Tenant
	if g.Small {
		q.maxBody = min(q.maxBody, r.opts.SmallBody)
	}
	q.project = append(q.project[:0], g.Project...)
	q.lease.Known()
	switch {
	case g.ReadOnly:
		return errcode.WriteNotAllowed.Errorf("the key lacks the scope \"write\"")
	case !q.asked:
		q.durability = max(r.opts.Durability, g.MinDurability)
	case q.durability < g.MinDurability:
		return errcode.DurabilityTooLow.Errorf("this key asks for durability %s at least", g.MinDurability)
	}
	return nil
}

// admitHead decides by the request's head whether to read its body. size is the body's length; negative: unknown.
func (q *request) admitHead(size int64) *errcode.Error {
	if err := q.fits(size); err != nil {
		return err
	}
	if q.redrive == nil { // an operator's has no limits
		q.account = q.tenant.Open(q.encoding)
	}
	return q.within(q.account.Enter(max(size, 0), q.meterTime()))
}

// meterTime is the time for the account. Most requests have no limits, and reading the clock costs as much as a lookup.
func (q *request) meterTime() time.Time {
	if !q.account.Limited() {
		return time.Time{}
	}
	return time.Now()
}

// admitBody decides by the body, after it is read and its key is known.
func (q *request) admitBody() *errcode.Error {
	size := int64(len(q.body))
	if err := q.copied(size); err != nil {
		return err
	}
	if !q.account.Entered() { // the key stood in the body, or nothing limits it
		return q.admitHead(size)
	}
	q.account.Grow(size)
	return q.fits(size)
}

// fits compares a body with the limits of its key.
func (q *request) fits(size int64) *errcode.Error {
	if !q.key.Small || size <= q.r.opts.SmallBody {
		return nil
	}
	return errcode.BodyTooLarge.Errorf("this key may send bodies of %d bytes: send fewer events at once, "+
		"or have the key made for large ones", q.r.opts.SmallBody)
}

// copied charges the memory of redaction's copies: the values as the protocol has them, and the values after redaction,
// both before large values become blobs. A body that can never fit in memory is rejected.
func (q *request) copied(size int64) *errcode.Error {
	if !q.redacts() || size <= int64(q.r.opts.BlobThreshold) {
		return nil
	}
	if limit := q.r.opts.MaxMemory / 2; size > limit {
		return errcode.BodyTooLarge.Errorf(
			"the body has %d bytes, the limit is %d for a project of which values are dropped or hashed",
			size, limit)
	}
	if q.lease.Grow(size) != nil {
		return busy()
	}
	return nil
}

// settleAccount ends the account of a request. A request that is to be sent again costs nothing. Accepted events count
// towards the day's quota.
func (q *request) settleAccount(refused *errcode.Error) {
	switch {
	case refused == nil || refused.Code == errcode.NotStoredYet:
		q.account.Use(q.accepted, int64(len(q.body)), q.meterTime())
	case refused.Code.Refunds():
		q.account.Refund()
	}
}

// within rejects the request if it exceeds a limit. The client still has the events.
func (q *request) within(l *tenant.Limit) *errcode.Error {
	if l == nil {
		return nil
	}
	q.notNow = l
	q.r.metrics.limited.WithLabelValues(q.r.metrics.of(q.key.Project), l.Name()).Inc()
	return l.Error()
}

// errSampled marks a good event that the project's sample leaves out.
var errSampled = errors.New("left out by the sample")

// settings decides by the project's settings whether an event is accepted, and redacts its columns. The returned rules
// are for its properties. size is the event's length in bytes.
func (q *request) settings(e *pipeline.Event, size int) (rules *document.Redaction, err error) {
	t := q.tenant
	switch {
	case t == nil:
		return nil, nil
	case !t.Accepts(e.Name):
		return nil, errcode.NameNotAllowed.Errorf("project %.100q does not accept the event name %.100q; it accepts %s",
			q.project, e.Name, list(t.Names))
	case t.SampledOut(e.Name, e.ID[:], e.SessionID, e.UserID):
		return nil, errSampled
	case t.Edits == nil:
		return nil, nil
	}
	properties, context := t.Edits.Copies()
	copied := 0
	if properties {
		copied += size
	}
	if context {
		copied += len(e.Context)
	}
	if q.lease.Grow(int64(copied)) != nil {
		q.overfull = true
		return nil, errMemory
	}
	e.UserID = t.Edits.Column(q.rows, document.UserPath, e.UserID)
	e.SessionID = t.Edits.Column(q.rows, document.SessionPath, e.SessionID)
	e.Context = t.Edits.Context(q.rows, e.Context)
	return t.Edits.Redaction, nil
}

// list names some of many names.
func list(names []string) string {
	const some = 10
	text := strings.Join(names[:min(len(names), some)], ", ")
	if more := len(names) - some; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
