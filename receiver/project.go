package receiver

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Project is what holds for all that is sent with any key of a project.
type Project struct {
	Name   string
	Events Rate // of events, also of those that are refused
	Bytes  Rate // of bodies, decompressed
	Quota  Quota
	Names  []string // of the events that are taken; * stands for any text; empty: all
	Sample *Sample  // nil: all that are taken stay
	Drop   []string // paths of what is taken out of events: properties.a.b, context.ip, user_id
	Hash   []string // paths of what is replaced by its HMAC-SHA256, in hex
	Salt   string   // of the HMAC
}

// tenants are the keys and projects that are in force: a request looks at them
// without a lock, and goes on with what it saw first.
type tenants struct {
	now    atomic.Pointer[snapshot]
	set    sync.Mutex        // held while another snapshot is made
	meters map[string]*meter // by project, from its first limit on
}

type snapshot struct {
	keys     map[[32]byte]tenantKey
	projects map[string]*tenant
}

type tenantKey struct {
	Key
	tenant *tenant
}

// tenant is a project with what its settings come to.
type tenant struct {
	Project
	meter   *meter   // nil: it has neither limits nor a quota
	names   *matcher // nil: all are taken
	sampled *matcher // whose names the sample is for; nil: all

	redaction *redaction // nil: events stay as they are
}

// SetProjects puts other keys and projects in the place of those of the call
// before. Options.Keys stay, and so does what projects have left of their limits.
// On an error nothing has changed.
func (r *Receiver) SetProjects(projects []Project, keys []Key) error {
	r.tenants.set.Lock()
	defer r.tenants.set.Unlock()
	next := &snapshot{keys: map[[32]byte]tenantKey{}, projects: map[string]*tenant{}}
	for _, p := range projects {
		t, err := newTenant(p, r.metrics)
		if err != nil {
			return err
		}
		if p.Events != (Rate{}) || p.Bytes != (Rate{}) || p.Quota != (Quota{}) {
			t.meter = r.tenants.meter(p.Name)
		}
		next.projects[p.Name] = t
	}
	for _, k := range r.opts.Keys {
		next.keys[k.Hash] = tenantKey{k, next.projects[k.Project]}
	}
	for _, k := range keys {
		if other, twice := next.keys[k.Hash]; twice {
			return fmt.Errorf("the key %q of the project %s has the hash of the key %q of %s: each may stand once, here or in receiver.keys", k.Name, k.Project, other.Name, other.Project)
		}
		next.keys[k.Hash] = tenantKey{k, next.projects[k.Project]}
	}
	r.tenants.now.Store(next)
	return nil
}

// CheckProjects tells why a receiver without other keys would not take these.
func CheckProjects(projects []Project, keys []Key) error {
	r := &Receiver{metrics: newMetrics(prometheus.NewRegistry()), tenants: tenants{meters: map[string]*meter{}}}
	return r.SetProjects(projects, keys)
}

func newTenant(p Project, m *metrics) (*tenant, error) {
	t := &tenant{Project: p, names: newMatcher(p.Names)}
	if p.Sample != nil {
		t.sampled = newMatcher(p.Sample.Names)
	}
	var err error
	if t.redaction, err = newRedaction(&p, m.redacted); err != nil {
		return nil, fmt.Errorf("project %s: %w", p.Name, err)
	}
	return t, nil
}

// Keys is how many keys are in force.
func (r *Receiver) Keys() int { return len(r.tenants.now.Load().keys) }
