package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/testing/tlstest"
	"github.com/penstock/penstock/receiver/tenant"
)

// alone prepares a receiver without bucket and queue: it stores on its disk.
func alone(t *testing.T, env ...string) *role {
	t.Helper()
	dir, sum := t.TempDir(), tenant.HashKey(key)
	r := &role{t: t, URL: "http://" + address(t), Admin: "http://" + address(t), args: []string{"receive"},
		log: filepath.Join(dir, "receive.log"), binary: plain} // the race detector takes many times the memory
	r.env = append(os.Environ(),
		"PENSTOCK_STORAGE_ENDPOINT=http://127.0.0.1:1", "PENSTOCK_STORAGE_ACCESS_KEY=a", "PENSTOCK_STORAGE_SECRET_KEY=b",
		"PENSTOCK_ADMIN_LISTEN="+strings.TrimPrefix(r.Admin, "http://"),
		"PENSTOCK_RECEIVER_LISTEN="+strings.TrimPrefix(r.URL, "http://"),
		"PENSTOCK_RECEIVER_NAME=alone", "PENSTOCK_BATCHER_DIR="+dir,
		"PENSTOCK_RECEIVER_KEYS=[{project: test, sha256: "+hex.EncodeToString(sum[:])+"}]")
	r.env = append(r.env, env...)
	return r
}

// headLines are lines of headers, n bytes in all, each as long as given.
func headLines(n, line int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len()+line < n; i++ {
		name := fmt.Sprintf("a%d:", i)
		fmt.Fprintf(&b, "%s%s\r\n", name, strings.Repeat("v", max(0, line-len(name)-2)))
	}
	return b.Bytes()
}

// dialMany opens n connections, 50 at a time. Rejected ones count too: they are expected.
func dialMany(t *testing.T, n int, open func(i int) (io.Closer, error)) {
	t.Helper()
	var g sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan bool, 50)
	for i := range n {
		slots <- true
		g.Go(func() {
			defer func() { <-slots }()
			if c, err := open(i); err == nil {
				mu.Lock()
				t.Cleanup(func() { c.Close() })
				mu.Unlock()
			}
		})
	}
	g.Wait()
}

// stalledStreams opens streams on an HTTP/2 connection. Each sends a head with about the bytes given and no body.
func stalledStreams(c net.Conn, streams, size int, header ...string) error {
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return err
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		return err
	}
	go io.Copy(io.Discard, c)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range streams {
		block.Reset()
		for at := 0; at < len(header); at += 2 {
			enc.WriteField(hpack.HeaderField{Name: header[at], Value: header[at+1]})
		}
		for n := 0; n < size; n += 500 {
			value := fmt.Sprintf("%d %d %0400d", i, n, 0)
			enc.WriteField(hpack.HeaderField{Name: fmt.Sprintf("x-%d-%d", i, n), Value: value, Sensitive: true})
		}
		id, first := uint32(2*i+1), true
		for rest := block.Bytes(); first || len(rest) > 0; first = false {
			part := rest[:min(len(rest), 16<<10)]
			rest = rest[len(part):]
			var err error
			if first {
				err = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: part, EndHeaders: len(rest) == 0})
			} else {
				err = f.WriteContinuation(id, len(rest) == 0, part)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Connections and heads of strangers are bounded in memory, and a customer gets in beside them.
func TestHeadsOfStrangers(t *testing.T) {
	t.Parallel()
	scale := number("PENSTOCK_HEADS_SCALE", 20) // percent of the connections that a receiver takes by default
	ca := tlstest.NewCA(t)
	cert, certKey := ca.Issue(t, t.TempDir(), "127.0.0.1")
	h2 := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	withTLS := []string{"PENSTOCK_RECEIVER_TLS={cert: " + cert + ", key: " + certKey + "}"}
	tlsDial := func(host string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return (&tls.Dialer{Config: h2}).DialContext(ctx, "tcp", host)
	}
	connections := 9500 * scale / 100
	for _, c := range []struct {
		name string
		env  []string
		open func(r *role, grpc string, i int) (io.Closer, error)
		n    int
	}{
		{"unfinished heads", nil, func(r *role, _ string, _ int) (io.Closer, error) {
			c, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
			if err == nil {
				c.SetDeadline(time.Now().Add(5 * time.Second))
				c.Write(append([]byte("POST /batch HTTP/1.1\r\nHost: x\r\n"), headLines(60<<10, 1000)...))
			}
			return c, err
		}, connections},
		{"unfinished heads of short lines", nil, func(r *role, _ string, _ int) (io.Closer, error) {
			c, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
			if err == nil {
				c.SetDeadline(time.Now().Add(5 * time.Second))
				c.Write(append([]byte("POST /batch HTTP/1.1\r\nHost: x\r\n"), headLines(15<<10, 9)...))
			}
			return c, err
		}, connections},
		{"requests without bodies by HTTP/1", nil, func(r *role, _ string, i int) (io.Closer, error) {
			c, err := net.Dial("tcp", strings.TrimPrefix(r.URL, "http://"))
			if err == nil {
				c.SetDeadline(time.Now().Add(5 * time.Second))
				fmt.Fprintf(c, "POST /batch HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.0.%d.%d\r\nContent-Length: 9\r\n%s\r\n", i>>8, i&255,
					headLines(14<<10, 100))
			}
			return c, err
		}, connections},
		{"idle TLS connections", withTLS, func(r *role, _ string, _ int) (io.Closer, error) {
			c, err := tlsDial(strings.TrimPrefix(r.URL, "http://"))
			if err == nil {
				err = stalledStreams(c, 0, 0)
			}
			return c, err
		}, connections},
		{"announced frames", withTLS, func(r *role, _ string, _ int) (io.Closer, error) {
			c, err := tlsDial(strings.TrimPrefix(r.URL, "http://"))
			if err == nil {
				if err = stalledStreams(c, 0, 0); err == nil {
					_, err = c.Write([]byte{0x0f, 0xff, 0xff, 1, 0, 0, 0, 0, 1}) // HEADERS of 1 MiB
				}
			}
			return c, err
		}, connections / 4},
		{"streams without bodies", withTLS, func(r *role, _ string, i int) (io.Closer, error) {
			c, err := tlsDial(strings.TrimPrefix(r.URL, "http://"))
			if err == nil {
				err = stalledStreams(c, 100, 15_000, ":method", "POST", ":scheme", "https", ":authority", "x", ":path", "/batch",
					"x-forwarded-for", fmt.Sprint("10.0.0.", i))
			}
			return c, err
		}, 200},
		{"calls without messages", nil, func(_ *role, grpc string, i int) (io.Closer, error) {
			c, err := net.Dial("tcp", grpc)
			if err == nil {
				err = stalledStreams(c, 100, 900_000, ":method", "POST", ":scheme", "http", ":authority", "x",
					":path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export", "content-type", "application/grpc")
			}
			return c, err
		}, 8},
		{"calls with small heads", nil, func(_ *role, grpc string, i int) (io.Closer, error) {
			c, err := net.Dial("tcp", grpc)
			if err == nil {
				err = stalledStreams(c, 100, 12_000, ":method", "POST", ":scheme", "http", ":authority", "x",
					":path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export", "content-type", "application/grpc")
			}
			return c, err
		}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			grpc := address(t)
			r := alone(t, append(c.env, "PENSTOCK_RECEIVER_OTLP_GRPC_LISTEN="+grpc, "PENSTOCK_RECEIVER_TRUSTED_PROXIES=[127.0.0.0/8]")...)
			r.spawn()
			r.awaitReady()
			dialMany(t, c.n, func(i int) (io.Closer, error) { return c.open(r, grpc, i) })
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			url := r.URL
			if c.env != nil {
				url = "https" + strings.TrimPrefix(url, "http")
			}
			worst := time.Duration(0)
			for range 20 {
				began := time.Now()
				req, _ := http.NewRequest(http.MethodPost, url+"/v1/events", strings.NewReader(`{"name":"a"}`))
				req.Header.Set("X-API-Key", key)
				resp, err := client.Do(req)
				if err != nil {
					t.Fatalf("a customer: %v", err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					t.Fatalf("a customer: got %s, want 202", resp.Status)
				}
				worst = max(worst, time.Since(began))
			}
			peak, err := load.PeakRSS(r.Pid)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d connections: %d MiB at most, a customer's slowest answer %s", c.n, peak>>20, worst)
			if peak>>20 > receiveMiB {
				t.Errorf("%d MiB resident, want %d at most", peak>>20, receiveMiB)
			}
		})
	}
}

// Handshakes that fail are the clients' doing: anybody could fill the log.
func TestFailedHandshakesAreNotLogged(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, certKey := ca.Issue(t, t.TempDir(), "127.0.0.1")
	grpc := address(t)
	r := alone(t, "PENSTOCK_RECEIVER_TLS={cert: "+cert+", key: "+certKey+"}", "PENSTOCK_RECEIVER_OTLP_GRPC_LISTEN="+grpc)
	r.spawn()
	r.awaitReady()
	for _, host := range []string{grpc, strings.TrimPrefix(r.URL, "http://")} {
		for range 20 {
			c, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(c, "GET / HTTP/1.1\r\n\r\n")
			io.Copy(io.Discard, c) // until the server has seen it
			c.Close()
		}
	}
	text, err := os.ReadFile(r.log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "TLS handshake error"); n > 0 {
		t.Errorf("%d lines of failed handshakes:\n%s", n, text)
	}
}
