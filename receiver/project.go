package receiver

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
)

// Project is what holds for all that is sent with any key of a project.
type Project struct {
	Name string
}

// tenants are the keys and projects that are in force: a request looks at them
// without a lock, and goes on with what it saw first.
type tenants struct {
	now atomic.Pointer[snapshot]
	set sync.Mutex // held while another snapshot is made
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
}

// SetProjects puts other keys and projects in the place of those of the call
// before. Options.Keys stay. On an error nothing has changed.
func (r *Receiver) SetProjects(projects []Project, keys []Key) error {
	r.tenants.set.Lock()
	defer r.tenants.set.Unlock()
	next := &snapshot{keys: map[[32]byte]tenantKey{}, projects: map[string]*tenant{}}
	for _, p := range projects {
		next.projects[p.Name] = &tenant{Project: p}
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

// Keys is how many keys are in force.
func (r *Receiver) Keys() int { return len(r.tenants.now.Load().keys) }

// admitHead decides by the request's head alone whether its body is read: size is
// its length, negative where that is not known.
func (q *request) admitHead(size int64) *refusal {
	return q.fits(size)
}

// admitBody decides by the body, once it is read and its key is known.
func (q *request) admitBody() *refusal {
	return q.fits(int64(max(len(q.sent), len(q.body))))
}

func (q *request) fits(size int64) *refusal {
	if !q.key.Small || size <= q.r.opts.SmallBody {
		return nil
	}
	return refuse(http.StatusRequestEntityTooLarge, "body_too_large", "this key may send bodies of %d bytes: send fewer events at once, or have the key made for large ones", q.r.opts.SmallBody)
}
