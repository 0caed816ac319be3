package receiver

import (
	"bytes"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/tokenbucket"
	"github.com/penstock/penstock/receiver/admission"
	"github.com/penstock/penstock/receiver/errcode"
	"github.com/penstock/penstock/receiver/protocol"
)

// A stranger is a client whose key is not known: it has none, a wrong one, or one in its body that was not read yet.
// strangers bounds what all of them cost together. Bytes that they send, bytes that these decompress to, and failure
// records come out of one budget. The bytes of a body that turns out to hold a known key are given back.
type strangers struct {
	budget  budget
	spooled atomic.Int64 // bytes of their bodies on disk
	most    int          // bodies that one address may send at once; 0: any number

	mu      sync.Mutex
	reading map[netip.Addr]map[*visit]bool // bodies that are being read, by address
	proven  map[netip.Addr]time.Time       // until when an address that sent a known key in a body is trusted with large ones
}

const (
	// anonymousBurst is how many seconds of the rate may be taken at once.
	anonymousBurst = 16
	// anonymousRecord is the least that a failure record takes besides its raw payload.
	anonymousRecord = 1 << 10
	// anonymousRefill is the lowest rate, in bytes a second, at which debts are paid off.
	anonymousRefill = 16 << 10
	// frontBytes of a body are read to find its key, whatever the budget has left. So a flood of strangers does not keep
	// out clients that send their key early or in a small body.
	frontBytes = 64 << 10
	// strangerRead is how many bytes are read at once, before they are paid for.
	strangerRead = 16 << 10
	// provenFor is how long an address counts as proven, and maxProven how many do at once.
	provenFor = time.Hour
	maxProven = 8 << 10
)

// budget is a number of bytes that refills with time.
type budget struct {
	rate int64 // bytes a second; 0: no failure record is kept
	debt int64 // bytes that may be read on credit

	mu   sync.Mutex
	left tokenbucket.Bucket
}

// refill is the rate at which the bucket refills: debts are paid off even if no failure record is kept.
func (b *budget) refill() tokenbucket.Rate {
	return tokenbucket.Rate{PerSecond: float64(max(b.rate, anonymousRefill)), Burst: float64(b.rate * anonymousBurst)}
}

// take takes n bytes that are kept if they are left. It reports whether they were.
func (b *budget) take(n int64) bool { return b.takeTo(n, 0) }

// borrow takes n bytes that are only read, on credit if need be.
func (b *budget) borrow(n int64) bool { return b.takeTo(n, -b.debt) }

func (b *budget) takeTo(n, floor int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left.TakeDownTo(b.refill(), float64(n), float64(floor), time.Now())
}

// spend takes n bytes that were read already, as far as the debt may grow.
func (b *budget) spend(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left.Spend(b.refill(), float64(n), float64(-b.debt), time.Now())
}

func (b *budget) giveBack(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left.GiveBack(float64(n))
}

func newStrangers(opts *Options) *strangers {
	return &strangers{most: opts.MaxKeyless, reading: map[netip.Addr]map[*visit]bool{}, proven: map[netip.Addr]time.Time{},
		budget: budget{rate: opts.AnonymousRate, debt: 2 * opts.strangerBody()}}
}

// strangerBody is the largest body of a stranger in bytes, sent or decompressed.
func (o *Options) strangerBody() int64 {
	if o.SmallBody == 0 {
		return o.MaxBody
	}
	return min(o.SmallBody, o.MaxBody)
}

// host is what an address counts as: of IPv6, one client has a whole /64.
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
func (s *strangers) enter(v *visit) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.most > 0 && len(s.reading[v.addr]) >= s.most && !s.replace(s.reading[v.addr], now) {
		return false
	}
	if s.reading[v.addr] == nil {
		s.reading[v.addr] = map[*visit]bool{}
	}
	s.reading[v.addr][v] = true
	v.inside, v.begin, v.proven = true, now, now.Before(s.proven[v.addr])
	return true
}

// replace ends the reading of one of the bodies. Go's maps begin their loops anywhere, so of many slow bodies behind one
// address some are read to their ends. mu is held.
func (s *strangers) replace(bodies map[*visit]bool, now time.Time) bool {
	for v := range bodies {
		if v.client != nil && now.Sub(v.begin) >= admission.Graceful {
			delete(bodies, v)
			v.replaced.Store(true)
			v.client.SetReadDeadline(now)
			return true
		}
	}
	return false
}

// arrived says that nothing more is read of a body. It reports whether another one has taken its place.
func (s *strangers) arrived(v *visit) (replaced bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.client = nil
	return v.replaced.Load()
}

// leave counts one less. prove says that its key was known.
func (s *strangers) leave(v *visit, prove bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	addr := v.addr
	v.inside, v.client = false, nil
	if delete(s.reading[addr], v); len(s.reading[addr]) == 0 {
		delete(s.reading, addr)
	}
	if !prove {
		return
	}
	if _, there := s.proven[addr]; !there && len(s.proven) >= maxProven {
		for other := range s.proven {
			delete(s.proven, other)
			break
		}
	}
	s.proven[addr] = time.Now().Add(provenFor)
}

// visit is what a request has cost while its key was not known.
type visit struct {
	inside bool // its body is read for its key
	addr   netip.Addr
	proven bool

	begin    time.Time
	client   *http.ResponseController // while the body is read
	replaced atomic.Bool              // another body of the address has taken its place

	paid   int64    // bytes taken from the budget
	unpaid int64    // bytes to be taken if no known key is found
	early  *refusal // by the limits of the key that stands in the front of the body
	denied *refusal // why that key may not send these events
}

// front is the beginning of a body, and then the rest of it.
type front struct {
	head []byte // what is left to be read of it
	rest io.Reader
}

func (f *front) Read(p []byte) (int, error) {
	if len(f.head) == 0 {
		return f.rest.Read(p)
	}
	n := copy(p, f.head)
	f.head = f.head[n:]
	return n, nil
}

// arrive begins to read a body whose key is in it.
func (q *request) arrive() *refusal {
	q.visit.addr, q.visit.client = host(q.clientIP), q.extend
	if !q.r.strangers.enter(&q.visit) {
		return q.crowded()
	}
	return nil
}

func (q *request) crowded() *refusal {
	return errcode.TooManyKeyless.Errorf("%d bodies of your address %s whose key is not known are being read: put the key into "+
		"the head, or send this again later", q.r.strangers.most, q.clientIP)
}

// known ends a request's time as a stranger. useKey calls it for every request whose key is known.
func (q *request) known() {
	q.conn.Known()
	q.releaseHead()
	v := &q.visit
	if !v.inside {
		return
	}
	q.r.strangers.leave(v, true)
	q.r.strangers.budget.giveBack(v.paid)
	v.paid, v.unpaid = 0, 0
	for _, s := range q.spools {
		s.unaccount(q.r)
	}
}

// unknown ends the account of a request that is refused and whose key was in its body, or should have been. Its bytes
// stay taken. The failure record is kept if the budget covers it.
func (q *request) unknown(req *http.Request, refused *refusal) {
	v := &q.visit
	if !v.inside {
		return
	}
	s := q.r.strangers
	s.leave(v, false)
	asked := !refused.Code.Kept()
	if asked || !s.budget.take(v.unpaid+q.recordSize(req)) {
		s.budget.spend(v.unpaid)
		if !asked {
			q.silent = true
			q.r.reporter.Drop("anonymous")
		}
	}
	v.paid, v.unpaid = 0, 0
}

// pay takes n bytes of a body whose key is not known yet, sent or decompressed. What all bodies may have, and all of a
// proven address, is paid for later, if it turns out to be a stranger's.
func (q *request) pay(n int64) error {
	v := &q.visit
	switch {
	case !v.inside:
	case v.proven, v.paid+v.unpaid+n <= 2*frontBytes:
		v.unpaid += n
	case !q.r.strangers.budget.borrow(n):
		return errAnonymous
	default:
		v.paid += n
	}
	return nil
}

// introduce reads the front of a body and looks for its key there. The reader that it returns reads the whole body.
// length is that of the body as sent.
func (q *request) introduce(src io.Reader, length int64) (io.Reader, error) {
	head, err := q.readFront(src)
	if err != nil && err != io.EOF {
		return nil, err
	}
	q.front = front{head, src}
	if err == io.EOF {
		return &q.front, nil
	}
	encoding := q.encoding
	if encoding == "" && q.route.FindsGzip && isGzip(head) {
		encoding = "gzip"
	}
	if encoding != "" && !q.whole { // what is read was not decompressed yet
		if head, err = q.unpackFront(head, encoding); err != nil {
			return nil, err
		}
	}
	return &q.front, q.meet(head, length)
}

// unpackFront decompresses the front of a body as far as it goes. That it ends early, or is broken, is found later.
func (q *request) unpackFront(head []byte, encoding string) ([]byte, error) {
	takes := int64(frontBytes + flateMemory)
	if encoding == "zstd" {
		takes = frontBytes + zstdWindow(head[:min(len(head), zstd.HeaderMaxSize)])
	}
	if err := q.charge(q.charged + takes); err != nil {
		return nil, err
	}
	defer func() { q.charge(q.charged - takes) }()
	z, err := frontReader(head, encoding)
	if err != nil {
		return nil, nil
	}
	plain := make([]byte, frontBytes)
	n, _ := io.ReadFull(z, plain)
	return plain[:n], q.pay(int64(n))
}

// readFront reads up to frontBytes, and returns io.EOF if that is all.
func (q *request) readFront(src io.Reader) ([]byte, error) {
	if q.frontBuf == nil {
		q.frontBuf = make([]byte, smallBuffer)
	}
	if err := q.charge(q.charged + int64(len(q.frontBuf))); err != nil {
		return nil, err
	}
	for n := 0; ; {
		if n == len(q.frontBuf) {
			if n >= frontBytes {
				return q.frontBuf, nil
			}
			grown := make([]byte, min(2*len(q.frontBuf), frontBytes))
			if err := q.charge(q.charged + int64(len(grown)-n)); err != nil {
				return nil, err
			}
			copy(grown, q.frontBuf)
			q.frontBuf = grown
		}
		m, err := src.Read(q.frontBuf[n:])
		if n += m; err != nil {
			return q.frontBuf[:n], err
		}
	}
}

// meet looks for a known key in the front of a body, and holds the body to the limits of the key. Without one it holds
// the body to those of strangers.
func (q *request) meet(text []byte, length int64) error {
	eachToken(protocol.Whole(text), func(key []byte) bool {
		if q.r.tenants.Known(string(key)) {
			q.maxBody = q.r.opts.MaxBody
			q.visit.denied = q.r.useKey(q, string(key)) // it is answered with the whole body, which its project keeps
		}
		return q.key.Project == ""
	})
	if q.key.Project == "" {
		q.maxBody = min(q.maxBody, q.r.opts.strangerBody())
		if length > q.maxBody {
			return errBody
		}
		return nil
	}
	if q.visit.early = q.admitHead(length); q.visit.early != nil {
		return errEarly
	}
	return nil
}

// maxTokens bounds how many texts of one body are looked up as keys.
const maxTokens = 8

// eachToken calls f with the texts in a JSON document, or in the beginning of one, that stand where clients put keys,
// until f returns false. It goes by strings alone.
func eachToken(b []byte, f func(text []byte) bool) {
	if len(b) == 0 || b[0] != '{' && b[0] != '[' {
		return
	}
	for tokens := 0; tokens < maxTokens; {
		at := bytes.IndexByte(b, '"')
		if at < 0 {
			return
		}
		b = b[at:]
		n := jsonscan.Extent(b)
		if n == 0 {
			return
		}
		name := b[1 : n-1]
		b = jsonscan.TrimSpace(b[n:])
		if !slices.Contains(protocol.KeyNames, string(name)) || len(b) == 0 || b[0] != ':' {
			continue
		}
		b = jsonscan.TrimSpace(b[1:])
		if len(b) > 0 && b[0] == '"' {
			tokens++
			if n = jsonscan.Extent(b); n == 0 || !f(protocol.PlainText(b[:n])) {
				return
			}
			b = b[n:]
		}
	}
}
