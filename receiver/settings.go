package receiver

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Sample leaves out a part of a project's events: those of a session are all
// taken or all left out, by every receiver at any time.
type Sample struct {
	By    string   // SampleSession, SampleUser or SampleEvent
	Keep  float64  // the part that is taken, 0 to 1
	Names []string // of the events that it is for, as Project.Names; empty: all
}

// What a sample goes by. An event without a session goes by its user, and one
// without either by its id.
const (
	SampleSession = "session"
	SampleUser    = "user"
	SampleEvent   = "event"
)

// errSampled says that an event is good, and left out by its project's sample.
var errSampled = errors.New("left out by the sample")

// matcher finds names in a list, in which * stands for any text.
type matcher struct {
	exact map[string]bool
	parts [][]string // of a name around its stars
}

func newMatcher(names []string) *matcher {
	if len(names) == 0 {
		return nil
	}
	m := &matcher{exact: map[string]bool{}}
	for _, n := range names {
		if parts := strings.Split(n, "*"); len(parts) > 1 {
			m.parts = append(m.parts, parts)
		} else {
			m.exact[n] = true
		}
	}
	return m
}

func (m *matcher) match(name []byte) bool {
	return m == nil || m.exact[string(name)] || slices.ContainsFunc(m.parts, func(parts []string) bool { return matchParts(parts, view(name)) })
}

func matchParts(parts []string, name string) bool {
	first, last := parts[0], parts[len(parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range parts[1 : len(parts)-1] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return true
}

// sampledOut tells whether the project's sample leaves an event out.
func (t *tenant) sampledOut(e *pipeline.Event) bool {
	s := t.Sample
	if s == nil || !t.sampled.match(e.Name) {
		return false
	}
	by := e.ID[:]
	switch {
	case s.By == SampleSession && len(e.SessionID) > 0:
		by = e.SessionID
	case s.By != SampleEvent && len(e.UserID) > 0:
		by = e.UserID
	}
	return spot(by) >= s.Keep
}

// spot is where a text stands between 0 and 1: always at the same place, and
// texts are spread evenly. Samples of different releases agree by it.
func spot(b []byte) float64 {
	h := uint64(14695981039346656037) // FNV-1a, and the end of MurmurHash3, without which its high bits are poor
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return float64(h>>11) / (1 << 53)
}

// make has the dialect make an event of its members, and does with it as its
// project's settings say.
func (q *request) make(members []jsonscan.Member) (pipeline.Event, error) {
	t := q.tenant
	if t == nil {
		return q.dialect.event(q, members)
	}
	blobs := len(q.blobs)
	q.uncut = t.redaction != nil // a value that left its row would take what is in it along
	e, err := q.dialect.event(q, members)
	q.uncut = false
	switch {
	case err != nil:
	case !t.names.match(e.Name):
		err = wrong("name_not_allowed", "project %.100q takes no events named %.100q: its names are %s", q.project, e.Name, list(t.Names))
	case t.sampledOut(&e):
		err = errSampled
	case t.redaction != nil:
		err = q.redact(&e, blobs)
	}
	return e, err
}

// list names some of many.
func list(names []string) string {
	const some = 10
	text := strings.Join(names[:min(len(names), some)], ", ")
	if more := len(names) - some; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
