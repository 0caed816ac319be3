package admission

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// FrontBytes of a body are read to find its key, whatever the budget has left. So a flood of strangers does not keep
	// out clients that send their key early or in a small body.
	FrontBytes = 64 << 10
	// provenFor is how long an address counts as proven, and maxProven how many do at once.
	provenFor = time.Hour
	maxProven = 8 << 10
)

// Deadliner ends the reading of a body. http.ResponseController is one.
type Deadliner interface {
	SetReadDeadline(deadline time.Time) error
}

// keyless are the bodies whose key is in them and not known yet.
type keyless struct {
	most int // that one address may send at once; 0: any number

	mu      sync.Mutex
	reading map[netip.Addr]map[*visit]bool
	proven  map[netip.Addr]time.Time // until when an address that sent a known key in a body is trusted with large ones
}

// visit is a request's cost while its key is unknown.
type visit struct {
	inside   bool // its body is read for its key
	addr     netip.Addr
	proven   bool
	began    time.Time
	client   Deadliner   // nil: nothing is read any more
	replaced atomic.Bool // another body of the address has taken its place
	paid     int64       // bytes taken from the budget
	unpaid   int64       // bytes to be taken if no known key is found
}

// host is the unit in which addresses are counted. In IPv6 a client has a whole /64.
func host(ip string) netip.Addr {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Addr{}
	}
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		p, _ := addr.Prefix(64)
		addr = p.Addr()
	}
	return addr
}

// enter counts one more body of v's address. Where the address has the most already, the new one replaces one that had
// time enough to bring its key.
func (k *keyless) enter(v *visit) (ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	bodies := k.reading[v.addr]
	if k.most > 0 && len(bodies) >= k.most && !replace(bodies, now) {
		return false
	}
	if bodies == nil {
		bodies = map[*visit]bool{}
		k.reading[v.addr] = bodies
	}
	bodies[v] = true
	v.inside, v.began, v.proven = true, now, now.Before(k.proven[v.addr])
	return true
}

// replace ends the reading of one of the bodies. Go's maps begin their loops anywhere, so of many slow bodies behind
// one address some are read to their ends.
func replace(bodies map[*visit]bool, now time.Time) bool {
	for v := range bodies {
		if v.client != nil && now.Sub(v.began) >= Graceful {
			delete(bodies, v)
			v.replaced.Store(true)
			v.client.SetReadDeadline(now)
			return true
		}
	}
	return false
}

// arrived says that nothing more is read of a body. It reports whether another one has taken its place.
func (k *keyless) arrived(v *visit) (replaced bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v.client = nil
	return v.replaced.Load()
}

// leave counts one less. prove says that its key was known.
func (k *keyless) leave(v *visit, prove bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v.inside, v.client = false, nil
	bodies := k.reading[v.addr]
	if delete(bodies, v); len(bodies) == 0 {
		delete(k.reading, v.addr)
	}
	if prove {
		k.prove(v.addr)
	}
}

// prove trusts an address. mu is held.
func (k *keyless) prove(addr netip.Addr) {
	if _, there := k.proven[addr]; !there && len(k.proven) >= maxProven {
		for other := range k.proven {
			delete(k.proven, other)
			break
		}
	}
	k.proven[addr] = time.Now().Add(provenFor)
}
