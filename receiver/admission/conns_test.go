package admission

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/tlstest"
)

// wire is a connection on which bytes come as fast as they are read.
type wire struct {
	net.Conn
	closed bool
}

func (w *wire) Read(p []byte) (int, error) {
	if w.closed {
		return 0, net.ErrClosed
	}
	return len(p), nil
}
func (w *wire) Close() error         { w.closed = true; return nil }
func (w *wire) CloseWrite() error    { return nil }
func (w *wire) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }

// wires is a listener that has new connections as long as it is asked.
type wires struct {
	net.Listener
	left int
	all  []*wire
}

func (l *wires) Accept() (net.Conn, error) {
	if l.left == 0 {
		return nil, net.ErrClosed
	}
	l.left--
	w := &wire{}
	l.all = append(l.all, w)
	return w, nil
}

func newConns(limits ConnLimits) *Conns {
	return NewConns(limits, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// accept takes n more connections of l.
func accept(t *testing.T, l net.Listener, from *wires, n int) (got []*Conn) {
	t.Helper()
	from.left += n
	for {
		c, err := l.Accept()
		if err != nil {
			return got
		}
		got = append(got, c.(*Conn))
	}
}

func TestMostConnections(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		s, from := NewConns(ConnLimits{Most: 3}, slog.New(slog.DiscardHandler), reg), &wires{}
		l := s.Attach(&http.Server{Handler: http.NotFoundHandler()}, from)
		all := accept(t, l, from, 3)
		all[0].Known()
		all[0].Known() // it is already
		if got := accept(t, l, from, 1); len(got) != 0 || !from.all[3].closed {
			t.Errorf("a fourth one is open within a second")
		}
		time.Sleep(Graceful)
		next := accept(t, l, from, 1)
		if len(next) != 1 || !from.all[1].closed || from.all[0].closed || from.all[2].closed {
			t.Errorf("the oldest stranger was not replaced: %d new", len(next))
		}
		all[2].Known()
		next[0].Known()
		time.Sleep(Graceful)
		if got := accept(t, l, from, 1); len(got) != 0 {
			t.Error("a customer's connection was replaced")
		}
		all[0].Close()
		if got := accept(t, l, from, 1); len(got) != 1 {
			t.Error("there is no place after one left")
		}
		got := map[string]float64{}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
		want := map[string]float64{"penstock_receiver_connections": 3, "penstock_receiver_connections_closed_total new": 2,
			"penstock_receiver_connections_closed_total keyless": 1}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

// Connections that do not bring a key share a part of the memory. New ones wait for the oldest to have had its time.
func TestMemoryOfConnections(t *testing.T) {
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	for _, tt := range []struct {
		name   string
		server *http.Server
		each   int64
	}{
		{"plain", &http.Server{}, plainConn},
		{"h2c", &http.Server{Protocols: &h2c}, h2cConn},
		{"TLS", &http.Server{TLSConfig: &tls.Config{}}, tlsConn},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				s, from := newConns(ConnLimits{Memory: 4 * tt.each}), &wires{}
				tt.server.Handler = http.NotFoundHandler()
				l := s.Attach(tt.server, from)
				all := accept(t, l, from, 4)
				began := time.Now()
				if got := accept(t, l, from, 4); len(got) != 4 || s.held != 4*tt.each {
					t.Errorf("%d are new, they hold %d bytes; want 4 and %d", len(got), s.held, 4*tt.each)
				}
				if took := time.Since(began); took != graceAtOnce {
					t.Errorf("they waited for %s, want %s", took, graceAtOnce)
				}
				for i, w := range from.all {
					if w.closed != (i < 4) {
						t.Errorf("connection %d is closed: %v", i, w.closed)
					}
				}
				for _, c := range all {
					c.Close() // as the server does
				}
				if s.held != 4*tt.each || s.all != 4 {
					t.Errorf("%d connections hold %d bytes", s.all, s.held)
				}
			})
		})
	}
}

// Heads that are not finished count; the oldest connection goes first, and the one that grows if only customers are
// left.
func TestUnfinishedHeads(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const heads = 4
		s, from := newConns(ConnLimits{Memory: heads * (plainConn + MaxHead*headCost)}), &wires{}
		l := s.Attach(&http.Server{Handler: http.NotFoundHandler()}, from)
		all := accept(t, l, from, heads+1)
		for i, c := range all {
			n, err := io.CopyN(io.Discard, c, MaxHead)
			if n != MaxHead || err != nil {
				t.Errorf("head %d: %d bytes, %v", i, n, err)
			}
		}
		if !from.all[0].closed || from.all[1].closed || from.all[heads].closed {
			t.Error("not the oldest one was closed")
		}
		if _, err := all[0].Read(make([]byte, 1)); err == nil {
			t.Error("the closed one can be read")
		}
		// Once the head was read to its end, it counts as a request's.
		last := all[heads]
		last.begin(1)
		if got, want := last.held, int64(plainConn); got != want {
			t.Errorf("it holds %d bytes in a request, want %d", got, want)
		}
		if io.CopyN(io.Discard, last, 10*MaxHead); last.held != plainConn {
			t.Errorf("its body holds %d bytes", last.held)
		}
		last.end()
		for _, c := range all[1:] {
			c.Known()
		}
		if s.held != 0 {
			t.Errorf("customers hold %d bytes, want 0", s.held)
		}
		var err error
		for i, c := range all[1:] {
			if _, err = io.CopyN(io.Discard, c, 40<<10); err != nil && i < heads-1 {
				t.Errorf("a customer's head %d: %v", i, err)
			}
			if s.held > s.limits.Memory {
				t.Errorf("heads hold %d bytes, want %d at most", s.held, s.limits.Memory)
			}
		}
		if !errors.Is(err, errHeads) {
			t.Errorf("the last head: got %v, want %v", err, errHeads)
		}
		for _, c := range all[1:] {
			c.begin(1)
			c.end()
		}
		if s.held != 0 {
			t.Errorf("%d bytes are held after all", s.held)
		}
	})
}

// In HTTP/2, bytes besides requests count until a key is known, up to the size of a head.
func TestFramesOfHTTP2(t *testing.T) {
	s, from := newConns(ConnLimits{Memory: 1 << 20}), &wires{}
	l := s.Attach(&http.Server{Handler: http.NotFoundHandler()}, from)
	c := accept(t, l, from, 1)[0]
	c.begin(2)
	io.CopyN(io.Discard, c, 10*MaxHead)
	if want := int64(plainConn + MaxHead*h2Cost); c.held != want {
		t.Errorf("a stranger's connection holds %d bytes, want %d", c.held, want)
	}
	c.Known()
	io.CopyN(io.Discard, c, 10*MaxHead)
	if c.held != 0 {
		t.Errorf("a customer's connection holds %d bytes, want 0", c.held)
	}
	c.end()
	var nobody *Conn
	nobody.begin(1)
	nobody.Known()
	nobody.end()
}

// Requests find their connection, with TLS and without.
func TestAttach(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, t.TempDir(), "127.0.0.1")
	for _, scheme := range []string{"http", "https"} {
		s := newConns(ConnLimits{Most: 10, Memory: 1 << 20})
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
			c := ConnOf(req.Context())
			if c == nil || c.serving.Load() != 1 || s.held == 0 {
				t.Errorf("%s: the request has no connection that counts", scheme)
			}
			c.Known()
		})}
		done := make(chan error)
		if scheme == "https" {
			server.TLSConfig = &tls.Config{}
			go func() { done <- server.ServeTLS(s.Attach(server, inner), cert, key) }()
		} else {
			go func() { done <- server.Serve(s.Attach(server, inner)) }()
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		resp, err := client.Get(scheme + "://" + inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		s.mu.Lock()
		if s.held != 0 {
			t.Errorf("%s: a customer's connection holds %d bytes", scheme, s.held)
		}
		s.mu.Unlock()
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if s.all != 0 {
			t.Errorf("%s: %d connections are open in the end", scheme, s.all)
		}
	}
}

func TestCloseWrite(t *testing.T) {
	for _, inner := range []net.Conn{&wire{}, struct{ net.Conn }{}} { // some connections cannot
		if err := (&Conn{Conn: inner}).CloseWrite(); err != nil {
			t.Errorf("%T: %v", inner, err)
		}
	}
}
