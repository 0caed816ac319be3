package e2e

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy forwards TCP connections and spoils them on demand. (The well-known
// library for it is to be had in a release of 2022 only, so this is ours.)
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	conns map[net.Conn]bool
	delay time.Duration // before each part that is forwarded
	stall chan struct{} // closed: forwarding goes on; open: half-open connections
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, conns: map[net.Conn]bool{}, stall: make(chan struct{})}
	close(p.stall)
	go p.accept()
	t.Cleanup(func() { l.Close(); p.set(0, false); p.cut() })
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		go p.forward(client, server)
		go p.forward(server, client)
	}
}

func (p *proxy) forward(to, from net.Conn) {
	defer func() {
		to.Close()
		from.Close()
		p.mu.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mu.Unlock()
	}()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		stall, delay := p.stall, p.delay
		p.mu.Unlock()
		<-stall
		time.Sleep(delay)
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil && !errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			return
		}
	}
}

// cut closes every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// set slows each part down by delay, or lets nothing through at all.
func (p *proxy) set(delay time.Duration, stalled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
	select {
	case <-p.stall:
		if stalled {
			p.stall = make(chan struct{})
		}
	default:
		if !stalled {
			close(p.stall)
		}
	}
}
