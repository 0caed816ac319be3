package app

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/config"
)

// Connections that send nothing are closed: in the middle of a head, and between
// requests. The limits are a hundredth of what they are, so that this takes seconds.
func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	server, err := newServer(ok, config.ServerTLS{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	head, idle := server.ReadHeaderTimeout/100, server.IdleTimeout/100
	if head > time.Second || idle > 3*time.Second {
		t.Fatalf("limits of %s and %s are too long", server.ReadHeaderTimeout, server.IdleTimeout)
	}
	server.ReadHeaderTimeout, server.IdleTimeout = head, idle
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	for name, c := range map[string]struct {
		sent  string
		limit time.Duration
	}{
		"no byte":       {"", head},
		"half a head":   {"POST /v1/events HTTP/1.1\r\nHost: x\r\n", head},
		"after request": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", idle},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			began := time.Now()
			if _, err := io.WriteString(conn, c.sent); err != nil {
				t.Fatal(err)
			}
			conn.SetReadDeadline(began.Add(c.limit + 10*time.Second))
			if _, err := io.Copy(io.Discard, bufio.NewReader(conn)); err != nil {
				t.Errorf("the connection is open after %s: %v", time.Since(began), err)
			}
			if took := time.Since(began); took < c.limit/2 {
				t.Errorf("closed after %s, want %s", took, c.limit)
			}
		})
	}
}
