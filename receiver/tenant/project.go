// Package tenant holds projects and their API keys: rate limits, quotas, the
// names of events that a project takes, and its sample.
//
// Keys and projects form one immutable snapshot. A request reads it once,
// without a lock. What a project has left of its limits outlives snapshots.
package tenant

import (
	"bytes"
	"slices"

	"github.com/penstock/penstock/internal/tokenbucket"
)

// Project is what holds for all that is sent with any key of a project.
type Project struct {
	Name   string
	Events Rate // of events, also of rejected ones; PerSecond 0: no limit
	Bytes  Rate // of bodies, decompressed; PerSecond 0: no limit
	Quota  Quota
	Names  []string // of the events that are accepted; * stands for any text; empty: all
	Sample *Sample  // nil: all that are accepted stay
	Drop   []string // paths that are removed from events: properties.a.b, context.ip, user_id
	Hash   []string // paths whose values are replaced by their HMAC-SHA256, in hex
	Salt   string   // of the HMAC
}

// Rate is how much a project may send a second, and how much at once after a pause.
type Rate = tokenbucket.Rate

// Quota is how much a project may send on a day in UTC.
type Quota struct{ Events, Bytes int64 } // 0: no limit

// limited reports whether anything limits the project.
func (p *Project) limited() bool {
	return p.Events != (Rate{}) || p.Bytes != (Rate{}) || p.Quota != (Quota{})
}

// Sample leaves out a part of a project's events. The events of a session are
// all accepted or all left out, by every receiver at any time.
type Sample struct {
	By    string   // BySession, ByUser or ByEvent
	Keep  float64  // the part that is accepted, 0 to 1
	Names []string // of the events that it is for, as Project.Names; empty: all
}

// What a sample is decided by. An event without a session is sampled by its user, and one without either by its id.
const (
	BySession = "session"
	ByUser    = "user"
	ByEvent   = "event"
)

// Tenant is a project with everything derived from its settings. E edits its events: the receiver builds it from the
// settings.
type Tenant[E any] struct {
	Project
	Edits E

	meter   *meter   // nil: nothing limits the project
	names   *matcher // nil: all are accepted
	sampled *matcher // of the names that the sample is for; nil: all
}

func newTenant[E any](p Project, edits E) *Tenant[E] {
	t := &Tenant[E]{Project: p, Edits: edits, names: newMatcher(p.Names)}
	if p.Sample != nil {
		t.sampled = newMatcher(p.Sample.Names)
	}
	return t
}

// Accepts reports whether the project takes events of that name.
func (t *Tenant[E]) Accepts(name []byte) bool { return t.names.match(name) }

// SampledOut reports whether the project's sample leaves an event out.
func (t *Tenant[E]) SampledOut(name, id, session, user []byte) bool {
	s := t.Sample
	if s == nil || !t.sampled.match(name) {
		return false
	}
	by := id
	switch {
	case s.By == BySession && len(session) > 0:
		by = session
	case s.By != ByEvent && len(user) > 0:
		by = user
	}
	return spot(by) >= s.Keep
}

// spot places a text between 0 and 1: always at the same place, and texts are
// spread evenly. Samples of different releases agree because of it.
func spot(b []byte) float64 {
	h := uint64(14695981039346656037) // FNV-1a, then the end of MurmurHash3, without which the high bits are poor
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return float64(h>>11) / (1 << 53)
}

// matcher finds names in a list, in which * stands for any text.
type matcher struct {
	exact map[string]bool
	parts [][][]byte // of a name, around its stars
}

func newMatcher(names []string) *matcher {
	if len(names) == 0 {
		return nil
	}
	m := &matcher{exact: map[string]bool{}}
	for _, n := range names {
		if parts := bytes.Split([]byte(n), []byte("*")); len(parts) > 1 {
			m.parts = append(m.parts, parts)
		} else {
			m.exact[n] = true
		}
	}
	return m
}

func (m *matcher) match(name []byte) bool {
	return m == nil || m.exact[string(name)] ||
		slices.ContainsFunc(m.parts, func(parts [][]byte) bool { return matchParts(parts, name) })
}

func matchParts(parts [][]byte, name []byte) bool {
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !bytes.HasPrefix(name, first) || !bytes.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		at := bytes.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return true
}
