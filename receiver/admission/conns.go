// Package admission bounds what clients cost a receiver before it knows who they are, and while it serves them.
package admission

import (
	lists "container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Conns bounds the connections of clients, in number and in memory. At a bound, a new connection replaces the oldest
// one that has never brought a known key, if that one had time enough to bring one. So connections that customers keep
// open survive, and strangers cannot lock customers out. Without one to replace, a new connection waits for memory, and
// is closed at once where their number is reached.
type Conns struct {
	limits  ConnLimits
	log     *slog.Logger
	open    prometheus.Gauge
	refused prometheus.Counter
	evicted prometheus.Counter

	mu        sync.Mutex
	all       int
	held      int64       // bytes: strangers' connections, and heads of requests that have not been read to their ends
	strangers *lists.List // of *Conn, the oldest first
}

// ConnLimits are the bounds of Conns.
type ConnLimits struct {
	Most   int   // connections; 0: any number
	Memory int64 // bytes of connections that have not brought a known key, and of unfinished heads; 0: any number
}

// Graceful is how long a client has to bring a key before another may take its place.
const Graceful = time.Second

// graceAtOnce is the same if new connections come so fast that they take all memory.
const graceAtOnce = Graceful / 4

// What connections take of memory, in bytes, measured with idle ones and with unfinished heads of short lines.
const (
	plainConn = 16 << 10 // HTTP/1: buffers and the stack of a goroutine
	h2cConn   = 24 << 10 // HTTP/2: frames and tables, too
	tlsConn   = 40 << 10
	headCost  = 8 // for each byte of a head by HTTP/1: headers of few bytes are map entries
	h2Cost    = 3 // for each byte of one by HTTP/2, whose limit counts headers at 32 bytes more
	freeHead  = 2 << 10
)

var errHeads = errors.New("too many connections have not finished the headers of a request")

// NewConns makes a bound on connections.
func NewConns(limits ConnLimits, log *slog.Logger, reg prometheus.Registerer) *Conns {
	c := &Conns{limits: limits, log: log, strangers: lists.New(),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_receiver_connections",
			Help: "Connections of clients that are open."})}
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_connections_closed_total",
		Help: "Connections closed because of receiver.max_connections or their memory: new ones, and old ones without a " +
			"known key."},
		[]string{"which"})
	c.refused, c.evicted = closed.WithLabelValues("new"), closed.WithLabelValues("keyless")
	reg.MustRegister(c.open, closed)
	return c
}

// Attach lets the connections of a server count. It returns the listener that the server has to use.
func (s *Conns) Attach(server *http.Server, l net.Listener) net.Listener {
	server.ConnContext = connContext
	next := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c := ConnOf(req.Context())
		c.begin(req.ProtoMajor)
		defer c.end()
		next.ServeHTTP(w, req)
	})
	base := int64(plainConn)
	switch p := server.Protocols; {
	case server.TLSConfig != nil:
		base = tlsConn
	case p != nil && p.UnencryptedHTTP2():
		base = h2cConn
	}
	return &listener{l, s, base}
}

func connContext(ctx context.Context, c net.Conn) context.Context {
	if inner, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = inner.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

type connKey struct{}

// ConnOf returns the connection of a request; nil: its server was not attached.
func ConnOf(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}

type listener struct {
	net.Listener
	conns *Conns
	base  int64
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		counted, wait := l.conns.add(c, l.base)
		for until := time.Now().Add(Graceful); counted == nil && wait > 0 && time.Now().Before(until); {
			time.Sleep(wait) // and the next ones wait in the system's queue
			counted, wait = l.conns.add(c, l.base)
		}
		if counted != nil {
			return counted, nil
		}
		l.conns.refused.Inc()
		l.conns.log.Warn("connection rejected: too many, or too much memory without a known key",
			"limit", l.conns.limits.Most, "address", c.RemoteAddr().String())
		c.Close()
	}
}

// Conn is a connection of a client.
type Conn struct {
	net.Conn
	of      *Conns
	began   time.Time
	base    int64          // bytes that it takes without a head
	place   *lists.Element // in Conns.strangers; nil: it has brought a known key, or is closed
	held    int64          // bytes of Conns.held
	closed  bool
	known   atomic.Bool
	http2   atomic.Bool
	serving atomic.Int32 // requests
	head    atomic.Int64 // bytes that have come since the last request began
}

// add counts a new connection; nil: there are too many. Then it returns when there may be memory for it again; 0: it is
// their number.
func (s *Conns) add(inner net.Conn, base int64) (*Conn, time.Duration) {
	c := &Conn{Conn: inner, of: s, began: time.Now(), base: base}
	s.mu.Lock()
	grace := graceAtOnce
	if s.limits.Most > 0 && s.all >= s.limits.Most {
		grace = Graceful
	}
	for wait := time.Duration(0); ; {
		full := s.limits.Most > 0 && s.all >= s.limits.Most
		if !full && s.fits(base) {
			break
		}
		oldest, age := s.oldest()
		if oldest == nil || age < grace {
			if !full {
				wait = max(grace-age, time.Millisecond)
			}
			s.mu.Unlock()
			return nil, wait
		}
		s.evict(oldest)
	}
	c.place = s.strangers.PushBack(c)
	s.all++
	s.hold(c, base)
	s.mu.Unlock()
	s.open.Inc()
	return c, 0
}

// fits reports whether more bytes fit into memory. For a single connection they always do. mu is held.
func (s *Conns) fits(more int64) bool {
	return s.limits.Memory == 0 || s.held == 0 || s.held+more <= s.limits.Memory
}

// oldest is the oldest connection without a known key; nil: there is none. mu is held.
func (s *Conns) oldest() (c *Conn, age time.Duration) {
	if front := s.strangers.Front(); front != nil {
		c = front.Value.(*Conn)
		age = time.Since(c.began)
	}
	return c, age
}

// evict closes a connection for the sake of others. mu is held.
func (s *Conns) evict(c *Conn) {
	s.forget(c)
	s.evicted.Inc()
	s.log.Warn("connection closed: too many, or too much memory in unfinished headers", "limit", s.limits.Most,
		"address", c.RemoteAddr().String())
	c.Conn.Close()
}

// hold sets the bytes that a connection takes. mu is held.
func (s *Conns) hold(c *Conn, size int64) {
	s.held += size - c.held
	c.held = size
}

// forget takes a connection out of all that is counted, but for the number of open ones if it has to be closed yet.
// mu is held.
func (s *Conns) forget(c *Conn) {
	if c.place != nil {
		s.strangers.Remove(c.place)
		c.place = nil
	}
	s.hold(c, 0)
	if !c.closed {
		c.closed = true
		s.all--
		s.open.Dec()
	}
}

// Read counts bytes that may be a request's head. While an HTTP/1 request is served, they are its body.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n <= 0 || c.serving.Load() > 0 && !c.http2.Load() || c.known.Load() && c.http2.Load() {
		return n, err
	}
	if head := c.head.Add(int64(n)); head > freeHead && !c.weigh(head) {
		return 0, errHeads
	}
	return n, err
}

// weigh counts an unfinished head. It reports false if the connection was closed for it, as the oldest of all or
// because only customers' connections are left.
func (c *Conn) weigh(head int64) bool {
	size := min(head, MaxHead+4<<10) * headCost // net/http reads as much more
	if c.http2.Load() {
		size = min(head, MaxHead) * h2Cost
	}
	s := c.of
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.place != nil {
		size += c.base
	}
	for !c.closed && !s.fits(size-c.held) {
		oldest, _ := s.oldest()
		if oldest == nil {
			oldest = c
		}
		s.evict(oldest)
	}
	if !c.closed {
		s.hold(c, size)
	}
	return !c.closed
}

// MaxHead is the most that a server should take of a request's line and headers, in bytes.
const MaxHead = 32 << 10

// begin says that the head of a request was read.
func (c *Conn) begin(protocol int) {
	if c == nil {
		return
	}
	c.serving.Add(1)
	if protocol == 2 && !c.http2.Load() {
		c.http2.Store(true)
	}
	c.release()
}

// release ends the account of a head.
func (c *Conn) release() {
	if c.head.Swap(0) <= freeHead {
		return
	}
	c.of.mu.Lock()
	if c.place != nil {
		c.of.hold(c, c.base)
	} else {
		c.of.hold(c, 0)
	}
	c.of.mu.Unlock()
}

// end says that a request was served.
func (c *Conn) end() {
	if c != nil {
		c.serving.Add(-1)
	}
}

// Known says that the connection has brought a known key.
func (c *Conn) Known() {
	if c == nil || c.known.Load() {
		return
	}
	c.known.Store(true)
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.place != nil {
		c.of.strangers.Remove(c.place)
		c.place = nil
		c.of.hold(c, 0)
	}
}

// Close closes the connection, which does not count any more.
func (c *Conn) Close() error {
	c.of.mu.Lock()
	c.of.forget(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite lets net/http send an answer to its end before it closes a connection on which a body is still coming.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
