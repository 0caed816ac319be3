package receiver

import (
	lists "container/list"
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// conns bounds the connections of clients. At the bound, a new connection takes the place of the oldest one that has
// never brought a known key, if that one had time enough to bring one. If there is none, the new one is closed at once.
// So connections that customers keep open survive, and strangers cannot lock customers out.
type conns struct {
	most    int // 0: any number
	log     *slog.Logger
	open    prometheus.Gauge
	refused prometheus.Counter
	evicted prometheus.Counter

	mu        sync.Mutex
	all       int
	strangers *lists.List // of *conn, the oldest first
}

// graceful is how long a connection has to bring a key before another may take its place.
const graceful = time.Second

// conn is a connection of a client.
type conn struct {
	net.Conn
	of      *conns
	begin   time.Time
	place   *lists.Element // in conns.strangers; nil: it has brought a known key, or is closed
	isKnown atomic.Bool
	closed  sync.Once
}

func newConns(most int, log *slog.Logger, reg prometheus.Registerer) *conns {
	c := &conns{most: most, log: log, strangers: lists.New(),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_receiver_connections",
			Help: "Connections of clients that are open."})}
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_receiver_connections_closed_total",
		Help: "Connections closed because receiver.max_connections was reached: new ones, and old ones without a known key."},
		[]string{"which"})
	c.refused, c.evicted = closed.WithLabelValues("new"), closed.WithLabelValues("keyless")
	reg.MustRegister(c.open, closed)
	return c
}

// Listen returns a listener whose connections count towards Options.MaxConnections. The server needs ConnContext as well.
func (r *Receiver) Listen(l net.Listener) net.Listener { return &listener{l, r.conns} }

// ConnContext lets requests find their connection. It is a field of http.Server.
func (r *Receiver) ConnContext(ctx context.Context, c net.Conn) context.Context {
	if inner, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = inner.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

type connKey struct{}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

type listener struct {
	net.Listener
	conns *conns
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if counted := l.conns.add(c); counted != nil {
			return counted, nil
		}
		c.Close()
	}
}

// add counts a new connection; nil: there are too many.
func (s *conns) add(c net.Conn) *conn {
	s.mu.Lock()
	var oldest *conn
	if s.most > 0 && s.all >= s.most {
		if front := s.strangers.Front(); front != nil && time.Since(front.Value.(*conn).begin) >= graceful {
			oldest = front.Value.(*conn)
			s.forget(oldest)
		} else {
			s.mu.Unlock()
			s.refused.Inc()
			s.log.Warn("connection refused: receiver.max_connections are open", "limit", s.most, "address", c.RemoteAddr().String())
			return nil
		}
	}
	counted := &conn{Conn: c, of: s, begin: time.Now()}
	counted.place = s.strangers.PushBack(counted)
	s.all++
	s.mu.Unlock()
	s.open.Inc()
	if oldest != nil {
		s.evicted.Inc()
		s.log.Warn("connection without a known key closed: receiver.max_connections are open", "limit", s.most,
			"address", oldest.RemoteAddr().String())
		oldest.Close()
	}
	return counted
}

// forget takes a connection off the list of strangers. mu is held.
func (s *conns) forget(c *conn) {
	if c.place != nil {
		s.strangers.Remove(c.place)
		c.place = nil
	}
}

// known says that the connection brought a known key.
func (c *conn) known() {
	if c == nil || c.isKnown.Load() {
		return
	}
	c.isKnown.Store(true)
	c.of.mu.Lock()
	c.of.forget(c)
	c.of.mu.Unlock()
}

func (c *conn) Close() error {
	c.closed.Do(func() {
		c.of.open.Dec()
		c.of.mu.Lock()
		c.of.forget(c)
		c.of.all--
		c.of.mu.Unlock()
	})
	return c.Conn.Close()
}

// CloseWrite lets net/http send an answer to its end before it closes a connection on which a body is still coming.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
