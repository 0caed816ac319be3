package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/traffic"
)

func dial(t *testing.T, addr string) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), addr, "secret")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// One connection through answers of every kind; it stays good all the while.
func TestPost(t *testing.T) {
	n, remote := 0, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil || strings.Count(string(text), "\n") != 3 || r.Header.Get("Authorization") != "Bearer secret" ||
			r.Method != "POST" || r.URL.Path != "/v1/events" {
			t.Errorf("got %s %s with %d bytes, error %v", r.Method, r.URL, len(text), err)
		}
		if remote != "" && remote != r.RemoteAddr {
			t.Error("a new connection")
		}
		remote = r.RemoteAddr
		n++
		switch n {
		case 1:
			w.WriteHeader(202)
			fmt.Fprint(w, `{"accepted":3,"rejected":0,"request_id":"x"}`)
		case 2: // longer than net/http's buffer: chunked
			fmt.Fprintf(w, `{"accepted":1,"rejected":2,"errors":[%s]}`, strings.Repeat("x", 100_000))
		case 3:
			w.WriteHeader(503)
			fmt.Fprint(w, "busy")
		case 4: // no body at all
			w.WriteHeader(429)
		default:
			fmt.Fprint(w, `{"accepted":3,"rejected":0}`)
		}
	}))
	defer server.Close()
	c := dial(t, server.Listener.Addr().String())
	body := traffic.NewBody(traffic.New("t", 1), 3)
	for request, want := range []struct {
		answer traffic.Answer
		status int
	}{{traffic.Answer{Accepted: 3}, 0}, {traffic.Answer{Accepted: 1, Rejected: 2}, 0}, {status: 503}, {status: 429},
		{traffic.Answer{Accepted: 3}, 0}} {
		got, err := c.Post(body, uint64(3*request))
		refused, isRefused := errors.AsType[*StatusError](err)
		if got != want.answer || isRefused != (want.status != 0) || !isRefused && err != nil || isRefused &&
			refused.Status != want.status {
			t.Errorf("request %d: %+v, error %v, want %+v", request, got, err, want)
		}
	}
}

// An answer that is cut off anywhere, or that does not count the events, is an error.
func TestPostBrokenAnswers(t *testing.T) {
	whole := "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: " +
		"27\r\n\r\n{\"accepted\":1,\"rejected\":0}"
	answers := []string{
		"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 xyz\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz",
	}
	for i := range whole {
		answers = append(answers, whole[:i])
	}
	for _, text := range append(answers, whole) {
		conn, server := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			buf := make([]byte, 64<<10)
			server.Read(buf)
			io.WriteString(server, text)
			server.Close()
		}()
		c := newConn(conn, "host", "key")
		a, err := c.Post(traffic.NewBody(traffic.New("t", 1), 1), 0)
		if _, refused := errors.AsType[*StatusError](err); refused || (err == nil) != (text == whole) {
			t.Errorf("%q: %+v, error %v", text, a, err)
		}
		c.Close()
		<-done
	}
}

// Clients that lose their connections make new ones, and tell what they do not know.
func TestCutConnections(t *testing.T) {
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if n++; n%5 == 0 {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, `{"accepted":10,"rejected":0}`)
	}))
	defer server.Close()
	c := clients(nil, 1)
	c.Events = 200
	c.Dial = func(ctx context.Context) (Poster, error) {
		return Dial(ctx, server.Listener.Addr().String(), "key")
	}
	sent, err := c.Run(t.Context(), new(Counts))
	if err != nil {
		t.Fatal(err)
	}
	if sent.Accepted != 160 || sent.Unknown != 40 || sent.Failures["connection"] != 4 {
		t.Errorf("accepted %d, unknown %d, failures %v", sent.Accepted, sent.Unknown, sent.Failures)
	}
	server.Close()
	if _, err := c.Run(t.Context(), new(Counts)); err == nil {
		t.Error("a server that is gone is no error")
	}
}
