package tenant

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/penstock/penstock/receiver/errcode"
)

// Store has the keys and projects that are in force.
type Store[E any] struct {
	fixed []Key
	edits func(*Project) (E, error)

	now    atomic.Pointer[snapshot[E]]
	mu     sync.Mutex        // held while a snapshot is made
	meters map[string]*meter // by project, from its first limit on
}

type snapshot[E any] struct {
	keys     map[[32]byte]Grant[E]
	projects map[string]*Tenant[E]
}

// Grant is a key and the settings of its project.
type Grant[E any] struct {
	Key
	Tenant *Tenant[E] // nil: the project has no settings
}

// NewStore makes a store with keys that stay. edits makes what edits a
// project's events; its error rejects the project.
func NewStore[E any](fixed []Key, edits func(*Project) (E, error)) *Store[E] {
	s := &Store[E]{fixed: fixed, edits: edits, meters: map[string]*meter{}}
	next := &snapshot[E]{keys: map[[32]byte]Grant[E]{}}
	for _, k := range fixed {
		next.keys[k.Hash] = Grant[E]{Key: k}
	}
	s.now.Store(next)
	return s
}

// Replace puts other keys and projects in force. The fixed keys stay, and so
// does what projects have left of their limits. On an error nothing changes.
func (s *Store[E]) Replace(projects []Project, keys []Key) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &snapshot[E]{keys: map[[32]byte]Grant[E]{}, projects: map[string]*Tenant[E]{}}
	for _, p := range projects {
		edits, err := s.edits(&p)
		if err != nil {
			return fmt.Errorf("project %s: %w", p.Name, err)
		}
		t := newTenant(p, edits)
		if p.limited() {
			t.meter = s.meter(p.Name)
		}
		next.projects[p.Name] = t
	}
	for _, k := range s.fixed {
		next.keys[k.Hash] = Grant[E]{k, next.projects[k.Project]}
	}
	for _, k := range keys {
		if other, twice := next.keys[k.Hash]; twice {
			return fmt.Errorf("the key %q of the project %s has the hash of the key %q of %s: "+
				"each may stand once, here or in receiver.keys", k.Name, k.Project, other.Name, other.Project)
		}
		next.keys[k.Hash] = Grant[E]{k, next.projects[k.Project]}
	}
	s.now.Store(next)
	return nil
}

// Find returns the grant of a key that is in force, in ms.
func (s *Store[E]) Find(key string, now int64) (Grant[E], *errcode.Error) {
	g, ok := s.now.Load().keys[HashKey(key)]
	switch {
	case !ok:
		return g, errcode.UnknownKey.Errorf("the key is not known here")
	case g.Expired(now):
		return g, errcode.ExpiredKey.Errorf("the key expired at %s: ask for its successor",
			g.Expires.UTC().Format(time.RFC3339))
	}
	return g, nil
}

// Known reports whether a text is a key, in force or expired.
func (s *Store[E]) Known(key string) bool {
	_, ok := s.now.Load().keys[HashKey(key)]
	return ok
}

// Project returns the settings of a project, nil if it has none.
func (s *Store[E]) Project(name string) *Tenant[E] { return s.now.Load().projects[name] }

// Keys is the number of keys.
func (s *Store[E]) Keys() int { return len(s.now.Load().keys) }

// Usage is what projects with a quota have sent on a day.
type Usage struct {
	Day      string          `json:"day"` // 2026-11-22, in UTC
	Projects map[string]Used `json:"projects"`
}

// Used is one project's usage.
type Used struct {
	Events int64 `json:"events"`
	Bytes  int64 `json:"bytes"`
}

// Usage is what projects have sent of their quotas today.
func (s *Store[E]) Usage() Usage {
	today, _ := day(time.Now())
	u := Usage{Day: today, Projects: map[string]Used{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, m := range s.meters {
		m.mu.Lock()
		if m.day == today && m.used != (Used{}) {
			u.Projects[name] = m.used
		}
		m.mu.Unlock()
	}
	return u
}

// SetUsage continues an earlier receiver's counts. Counts of another day are dropped.
func (s *Store[E]) SetUsage(u Usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, used := range u.Projects {
		m := s.meter(name)
		m.mu.Lock()
		m.day, m.used = u.Day, used
		m.mu.Unlock()
	}
}

// meter returns a project's meter. mu is held.
func (s *Store[E]) meter(project string) *meter {
	m := s.meters[project]
	if m == nil {
		m = &meter{}
		s.meters[project] = m
	}
	return m
}
