package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/tlstest"
)

// readyz returns the role's answer to /readyz.
func (r *role) readyz() (int, string) {
	r.t.Helper()
	resp, err := http.Get(r.Admin + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// While the clocks of machine and store differ by an hour, no event is acknowledged: it would be stored under a time
// where nobody looks.
func TestWrongClock(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	target, err := url.Parse(s.minio.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	var hours atomic.Int64
	hours.Store(1)
	store := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			r.Header.Set("Date", time.Now().Add(time.Duration(hours.Load())*time.Hour).UTC().Format(http.TimeFormat))
			return nil
		},
	})
	defer store.Close()
	r := s.launch("r1", "receive", "PENSTOCK_STORAGE_ENDPOINT="+store.URL)
	post := func() int {
		req, _ := http.NewRequest(http.MethodPost, r.URL+"/v1/events", strings.NewReader(`{"name":"a"}`))
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
			t.Error("a 503 without Retry-After")
		}
		return resp.StatusCode
	}
	eventually(t, 20*time.Second, "the receiver refuses", func() error {
		if code := post(); code != http.StatusServiceUnavailable {
			return fmt.Errorf("answered %d", code)
		}
		return nil
	})
	if code, text := r.readyz(); code != http.StatusServiceUnavailable || !strings.Contains(text, "clock") {
		t.Errorf("/readyz: %d %s", code, text)
	}
	if got := r.metric("penstock_clock_offset_seconds"); got > -3590 || got < -3610 {
		t.Errorf("offset %f, want -3600", got)
	}
	hours.Store(0)
	r.awaitReady()
	if code := post(); code/100 != 2 {
		t.Errorf("with the right clock: %d", code)
	}
	r.term()
}

// A folder in a segment's place keeps no other event away, and the operator sees a warning.
func TestUnreadableSegment(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	bad := filepath.Join(s.dir, "r1", "events", "0000000000000099.wal")
	if err := os.MkdirAll(bad, 0o700); err != nil {
		t.Fatal(err)
	}
	r := s.start("r1", "receive")
	if _, text := r.readyz(); !strings.Contains(text, "events: 1 file of the write-ahead log set aside") {
		t.Errorf("/readyz: %s", text)
	}
	if _, err := os.Stat(bad + ".unreadable"); err != nil {
		t.Error(err)
	}
	if got := r.metric(`penstock_batcher_wal_set_aside_files{pipeline="events"}`); got != 1 {
		t.Errorf("%f segments counted, want 1", got)
	}
	path, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "status")
	cmd.Env = s.env("PENSTOCK_STATUS_ADMINS=" + r.Admin)
	if out, err := cmd.CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "1 file of the write-ahead log set aside") {
		t.Errorf("status: %v\n%s", err, out)
	}
	r.term()
}

// Events come by TLS and HTTP/2, small and large, and status asks a listener with a private CA.
func TestReceiveByTLS(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	ca := tlstest.NewCA(t)
	cert, certKey := ca.Issue(t, t.TempDir(), "127.0.0.1")
	r := s.launch("r1", "receive", "PENSTOCK_RECEIVER_TLS_CERT="+cert, "PENSTOCK_RECEIVER_TLS_KEY="+certKey,
		"PENSTOCK_ADMIN_TLS={cert: "+cert+", key: "+certKey+", client_ca: "+ca.File+"}")
	clientCert, clientKey := ca.Issue(t, t.TempDir(), "client")
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}}}
	host := strings.TrimPrefix(r.URL, "http://")
	eventually(t, 20*time.Second, "ready by TLS", func() error {
		resp, err := client.Get("https://" + strings.TrimPrefix(r.Admin, "http://") + "/readyz")
		if err == nil && resp.StatusCode != 200 {
			err = fmt.Errorf("%s", resp.Status)
		}
		return err
	})
	for _, size := range []int{10, 3 << 20} {
		body := []byte(`{"name":"tls","text":"` + strings.Repeat("x", size) + `"}`)
		req, _ := http.NewRequest(http.MethodPost, "https://"+host+"/v1/events", bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode/100 != 2 || resp.ProtoMajor != 2 {
			t.Errorf("%d bytes: %s by %s: %s", size, resp.Status, resp.Proto, text)
		}
	}
	if resp, err := http.Get(r.URL + "/v1/events"); err == nil {
		if resp.Body.Close(); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP: %s", resp.Status)
		}
	}
	path, err := penstock()
	if err != nil {
		t.Fatal(err)
	}
	for _, with := range []bool{true, false} {
		cmd := exec.CommandContext(t.Context(), path, "status")
		cmd.Env = s.env("PENSTOCK_STATUS_ADMINS=https://" + strings.TrimPrefix(r.Admin, "http://"))
		if with {
			cmd.Env = append(cmd.Env, "PENSTOCK_STATUS_TLS={ca: "+ca.File+", cert: "+clientCert+", key: "+clientKey+"}")
		}
		out, err := cmd.CombinedOutput()
		if (err == nil) != with {
			t.Errorf("status, with certificates %v: %v\n%s", with, err, out)
		}
	}
	r.term()
}
