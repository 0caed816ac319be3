package admission

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a request cannot be served now.
var (
	ErrMemory    = errors.New("memory limit")
	ErrSpool     = errors.New("no room on disk for a large body")
	ErrAnonymous = errors.New("anonymous limit")
	ErrCrowded   = errors.New("limit of an address")
)

// Limits are the bounds of a receiver. All sizes are in bytes.
type Limits struct {
	Memory        int64  // of all requests
	Spool         int64  // of large bodies on disk
	SpoolDir      string // where they are
	AnonymousRate int64  // a second, of requests without a known key, read or reported; 0: none is reported
	StrangerBody  int64  // the largest body of a stranger, sent or decompressed
	MaxKeyless    int    // bodies that one address may send at once while their key is not known; 0: any number
	Connections   int    // 0: any number
}

// Control admits requests.
type Control struct {
	Budget *Budget // of strangers
	Conns  *Conns

	limits  Limits
	memory  atomic.Int64  // of all requests now
	spooled atomic.Int64  // of all files
	strange atomic.Int64  // of strangers' files
	large   chan struct{} // the turn of the one request checked with its body on disk
	medium  chan struct{} // the turns of requests checked with bodies beyond MediumAt
	keyless keyless
}

// New makes a control. It starts nothing.
func New(l Limits, log *slog.Logger, reg prometheus.Registerer) *Control {
	return &Control{
		limits: l, Budget: &Budget{rate: l.AnonymousRate, debt: 2 * l.StrangerBody},
		Conns: NewConns(ConnLimits{Most: l.Connections, Memory: l.Memory / 2}, log, reg),
		large: make(chan struct{}, 1), medium: make(chan struct{}, runtime.GOMAXPROCS(0)),
		keyless: keyless{most: l.MaxKeyless, reading: map[netip.Addr]map[*visit]bool{}, proven: map[netip.Addr]time.Time{}},
	}
}

// Memory is the memory of all requests now, in bytes.
func (c *Control) Memory() int64 { return c.memory.Load() }

// Spooled is the size of all bodies on disk now, in bytes.
func (c *Control) Spooled() int64 { return c.spooled.Load() }

// Turns is how many requests have a turn now.
func (c *Control) Turns() int { return len(c.large) + len(c.medium) }

// Reading is how many bodies are read now for the key that is in them.
func (c *Control) Reading() (n int) {
	c.keyless.mu.Lock()
	defer c.keyless.mu.Unlock()
	for _, bodies := range c.keyless.reading {
		n += len(bodies)
	}
	return n
}

// Class is the way in which a body is checked.
type Class uint8

// The classes, by the size of a body.
const (
	Small  Class = iota // at once
	Medium              // one for each processor at a time: judging takes several times a body
	Large               // alone, from disk
)

// MediumAt is the size from which on bodies in memory are medium, in bytes.
const MediumAt = 64 << 10

// Lease is a request's share of memory, disk and turns. It starts as a stranger's. Close returns all of it. The zero
// value is closed.
type Lease struct {
	Conn *Conn // of the request; nil: its server was not attached

	of    *Control
	known bool
	size  int64 // of memory
	apart int64 // of these, covered by the request's turn
	head  int64 // of memory besides
	turn  Class // that it has
	files []*File
	visit visit
}

// Open begins the lease of a request.
func (l *Lease) Open(c *Control) { l.of = c }

// Close returns everything that the request holds.
func (l *Lease) Close() {
	if l.of == nil {
		return
	}
	l.Resize(0)
	l.releaseHead()
	l.Yield()
	l.Remove()
	if l.visit.inside { // its handler panicked
		l.of.keyless.leave(&l.visit, false)
	}
	*l = Lease{}
}

// Size is the memory that the request takes, without its head.
func (l *Lease) Size() int64 { return l.size }

// Resize charges the request size bytes of memory before they are allocated, so that many large requests at once are
// rejected instead of fatal. A request that is alone is never rejected for lack of memory: it would be rejected always.
// Strangers' bodies are read only for the errors pipeline, so they leave half of the memory to customers. Memory used
// in a turn is not charged, because few requests have a turn: small requests run beside them.
func (l *Lease) Resize(size int64) error {
	more := size - l.size
	switch {
	case more > 0 && l.turn != Small && l.known:
		l.apart += more
		l.size = size
		return nil
	case more < 0:
		back := min(-more, l.apart)
		l.apart -= back
		more += back
	}
	if !l.take(more, size+l.head) {
		return ErrMemory
	}
	l.size = size
	return nil
}

// Grow is Resize by n bytes, which may be fewer than none.
func (l *Lease) Grow(n int64) error { return l.Resize(l.size + n) }

// take counts more bytes of a request that takes own bytes then.
func (l *Lease) take(more, own int64) bool {
	limit := l.of.limits.Memory
	if !l.known {
		limit /= 2
	}
	if all := l.of.memory.Add(more); more > 0 && all > limit && all > own {
		l.of.memory.Add(-more)
		return false
	}
	return true
}

const (
	// strangerMemory is a request's memory besides its head and body, in bytes.
	strangerMemory = 16 << 10
	// knownHead bytes of a customer's headers are not counted.
	knownHead = 4 << 10
)

// headSize is the approximate memory of a request's headers, in bytes.
func headSize(req *http.Request) int64 {
	n := len(req.RequestURI)
	for name, values := range req.Header {
		n += 64 + len(name)
		for _, v := range values {
			n += 16 + len(v)
		}
	}
	return int64(n)
}

// Head counts the head of a request, which stays in memory until it is answered, and for a stranger all that serving it
// takes.
func (l *Lease) Head(req *http.Request) error {
	n := headSize(req)
	if !l.known {
		n += strangerMemory
	} else if n <= knownHead {
		return nil
	}
	if !l.take(n, n) {
		return ErrMemory
	}
	l.head = n
	return nil
}

func (l *Lease) releaseHead() {
	l.of.memory.Add(-l.head)
	l.head = 0
}

// Known records that the request has a known key. What it cost as a stranger is returned.
func (l *Lease) Known() {
	l.Conn.Known()
	l.releaseHead()
	l.known = true
	v := &l.visit
	if !v.inside {
		return
	}
	l.of.keyless.leave(v, true)
	l.of.Budget.giveBack(v.paid)
	v.paid, v.unpaid = 0, 0
	for _, f := range l.files {
		f.acknowledge()
	}
}

// Turn waits until a body of that size may be checked.
func (l *Lease) Turn(ctx context.Context, size int) error {
	turns, class := l.of.medium, Medium
	switch {
	case l.turn != Small:
		return nil
	case len(l.files) > 0:
		turns, class = l.of.large, Large
	case size <= MediumAt:
		return nil
	}
	select {
	case turns <- struct{}{}:
		l.turn = class
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Class is the turn that the request has; Small: none.
func (l *Lease) Class() Class { return l.turn }

// Overdrawn reports whether other requests have more memory than there is. Those before this one in its turn have kept
// more than was foreseen then.
func (l *Lease) Overdrawn() bool {
	return l.turn != Small && l.of.memory.Load()-(l.size-l.apart) > l.of.limits.Memory
}

// Yield lets the next body be checked. Memory that this request keeps from its turn is charged beside the next one's.
func (l *Lease) Yield() {
	l.of.memory.Add(l.apart)
	l.apart = 0
	switch l.turn {
	case Medium:
		<-l.of.medium
	case Large:
		l.Unload()
		<-l.of.large
	}
	l.turn = Small
}

// Enter begins reading a body that contains its key. If the address has too many such bodies, another one may replace
// it; then client's deadline ends the reading.
func (l *Lease) Enter(ip string, client Deadliner) error {
	l.visit.addr, l.visit.client = host(ip), client
	if !l.of.keyless.enter(&l.visit) {
		return ErrCrowded
	}
	return nil
}

// Inside reports whether the request's key is looked for in its body.
func (l *Lease) Inside() bool { return l.visit.inside }

// Replaced reports whether another body has taken the place of this one.
func (l *Lease) Replaced() bool { return l.visit.replaced.Load() }

// Arrived says that nothing more is read of a body that entered.
func (l *Lease) Arrived() error {
	if l.of.keyless.arrived(&l.visit) {
		return ErrCrowded
	}
	return nil
}

// Pay charges n bytes of a body whose key is not known yet, sent or decompressed. Bytes within the free allowance, and
// all bytes of a proven address, are charged later, if the body turns out to be a stranger's.
func (l *Lease) Pay(n int64) error {
	v := &l.visit
	switch {
	case !v.inside:
	case v.proven, v.paid+v.unpaid+n <= 2*FrontBytes:
		v.unpaid += n
	case !l.of.Budget.borrow(n):
		return ErrAnonymous
	default:
		v.paid += n
	}
	return nil
}

// Unknown ends the account of a request whose key was looked for in its body and not found. Its bytes stay taken. It
// reports whether the budget covers a failure record of that many bytes besides the body; 0: none is to be stored.
func (l *Lease) Unknown(record int64) (stored bool) {
	v := &l.visit
	l.of.keyless.leave(v, false)
	if stored = record > 0 && l.of.Budget.Take(v.unpaid+record); !stored {
		l.of.Budget.Spend(v.unpaid)
	}
	v.paid, v.unpaid = 0, 0
	return stored
}
