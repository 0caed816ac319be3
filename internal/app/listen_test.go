package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/testing/tlstest"
)

// startAdmin runs an admin listener until the test ends and returns its host and port.
func startAdmin(t *testing.T, cfg config.Admin) string {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	a, err := listenAdmin(cfg, operate.API{Operator: &operate.Operator{}, Metrics: newRegistry(),
		Ready:  func() error { return nil },
		Status: func() operate.RoleStatus { return operate.RoleStatus{Role: "test"} }}, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return a.listener.Addr().String()
}

// A page of another site makes the browser send the site's name as Origin, or, once the name points here, as Host.
func TestAdminRefusesOtherSites(t *testing.T) {
	addr := startAdmin(t, config.Admin{Listen: "localhost:0", Hosts: []string{"penstock-receiver.events.svc"}})
	for _, tt := range []struct {
		host, origin string
		want         int
	}{
		{addr, "", http.StatusOK},
		{"127.0.0.1", "", http.StatusOK},
		{"[::1]:8081", "", http.StatusOK},
		{"[::1]", "", http.StatusOK},
		{"10.1.2.3:8081", "", http.StatusOK}, // a probe of Kubernetes
		{"localhost:8081", "", http.StatusOK},
		{"LOCALHOST.", "", http.StatusOK},
		{"penstock-receiver.events.svc:8081", "", http.StatusOK},
		{"evil.example", "", http.StatusForbidden},
		{"evil.example:8081", "", http.StatusForbidden},
		{"localhost.evil.example", "", http.StatusForbidden},
		{"127.0.0.1.evil.example", "", http.StatusForbidden},
		{"penstock-receiver.events.svc.evil.example", "", http.StatusForbidden},
		{"", "", http.StatusForbidden},
		{addr, "http://" + addr, http.StatusOK},
		{addr, "http://evil.example", http.StatusForbidden},
		{addr, "https://" + addr, http.StatusForbidden},
		{addr, "null", http.StatusForbidden},
		{"evil.example", "http://evil.example", http.StatusForbidden},
	} {
		for _, path := range []string{"/status", "/metrics", "/readyz", "/livez", "/version", "/v1/openapi.json"} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			head := "GET " + path + " HTTP/1.1\r\nConnection: close\r\nHost: " + tt.host + "\r\n"
			if tt.origin != "" {
				head += "Origin: " + tt.origin + "\r\n"
			}
			io.WriteString(conn, head+"\r\n")
			answer, _ := io.ReadAll(conn)
			conn.Close()
			if !strings.HasPrefix(string(answer), "HTTP/1.1 "+http.StatusText(tt.want)) &&
				!strings.Contains(strings.SplitN(string(answer), "\r\n", 2)[0], http.StatusText(tt.want)) {
				t.Errorf("%s, host %q, origin %q: got %.80q, want %d", path, tt.host, tt.origin, answer, tt.want)
			}
		}
	}
}

// within polls until f holds, for what is looked at once a second.
func within(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

func TestAdminTokenIsReadAgain(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	put := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first-token\n")
	cfg, err := config.Load("", []string{"PENSTOCK_ADMIN_TOKEN_FILE=" + file, "PENSTOCK_ADMIN_LISTEN=127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	addr := startAdmin(t, cfg.Admin)
	status := func(token string) int {
		req, _ := http.NewRequest(http.MethodGet, "http://"+addr+"/debug/pprof/", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := status("first-token"); got != http.StatusOK {
		t.Fatalf("with the token: %d", got)
	}
	put("second-one\n")
	within(t, 5*time.Second, "the new token", func() bool {
		time.Sleep(500 * time.Millisecond) // more wrong tokens would count as guesses
		return status("second-one") == http.StatusOK
	})
	if got := status("first-token"); got != http.StatusUnauthorized {
		t.Errorf("with the old token: %d", got)
	}
	put("\n") // half written: not "no token", which would let nobody or everybody in
	time.Sleep(1100 * time.Millisecond)
	if got := status("second-one"); got != http.StatusOK {
		t.Errorf("after the file was emptied: %d", got)
	}
}

func TestAdminTLS(t *testing.T) {
	t.Parallel()
	ca, dir := tlstest.NewCA(t), t.TempDir()
	cert, key := ca.Issue(t, dir, "127.0.0.1")
	clientCert, clientKey := ca.Issue(t, t.TempDir(), "operator")
	addr := startAdmin(t, config.Admin{Listen: "127.0.0.1:0",
		TLS: config.ServerTLS{Cert: cert, Key: key, ClientCA: ca.File}})
	if _, err := operate.AskRole(t.Context(), config.ClientTLS{}.HTTPClient(), "https://"+addr); err == nil {
		t.Error("a client that does not know the CA trusts the listener")
	}
	if _, err := operate.AskRole(t.Context(), config.ClientTLS{CA: ca.File}.HTTPClient(), "https://"+addr); err == nil {
		t.Error("a client without a certificate is let in")
	}
	other := tlstest.NewCA(t)
	otherCert, otherKey := other.Issue(t, t.TempDir(), "operator")
	if _, err := operate.AskRole(t.Context(), config.ClientTLS{CA: ca.File, Cert: otherCert, Key: otherKey}.HTTPClient(),
		"https://"+addr); err == nil {
		t.Error("a client with another CA's certificate is let in")
	}
	files := config.ClientTLS{CA: ca.File, Cert: clientCert, Key: clientKey}
	st, err := operate.AskRole(t.Context(), files.HTTPClient(), "https://"+addr)
	if err != nil || st.Role != "test" {
		t.Errorf("got %+v, %v", st, err)
	}
	serial := func() string {
		transport := files.HTTPClient().Transport.(*http.Transport)
		conn, err := tls.Dial("tcp", addr, transport.TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	if err := os.WriteFile(key, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	if got := serial(); got != before {
		t.Error("a key that cannot be read replaced the certificate")
	}
	ca.Issue(t, dir, "127.0.0.1")
	within(t, 5*time.Second, "the new certificate", func() bool { return serial() != before })
}

// A connection is bounded: requests at once, headers, and what it costs to wait for.
func TestServerLimits(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, t.TempDir(), "localhost")
	got := make(chan string, 1000)
	s, err := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Proto
		io.Copy(w, r.Body)
	}), config.ServerTLS{Cert: cert, Key: key}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > 10*time.Second || s.IdleTimeout <= 0 ||
		s.IdleTimeout > 2*time.Minute {
		t.Errorf("header timeout %s, idle timeout %s", s.ReadHeaderTimeout, s.IdleTimeout)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- serve(s, l) }()
	defer func() {
		s.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	client := config.ClientTLS{CA: ca.File, ServerName: "localhost"}.HTTPClient()
	body := bytes.Repeat([]byte("x"), 3<<20)
	resp, err := client.Post("https://"+l.Addr().String()+"/", "text/plain", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	echo, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !bytes.Equal(echo, body) || resp.ProtoMajor != 2 || <-got != "HTTP/2.0" {
		t.Errorf("%d bytes by %s, %v; want %d by HTTP/2", len(echo), resp.Proto, err, len(body))
	}
	req, _ := http.NewRequest(http.MethodGet, "https://"+l.Addr().String()+"/", nil)
	req.Header.Set("X-Long", strings.Repeat("x", 80<<10))
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("80 KiB of headers: %s", resp.Status)
		}
	}
	conn, err := tls.Dial("tcp", l.Addr().String(),
		&tls.Config{RootCAs: client.Transport.(*http.Transport).TLSClientConfig.RootCAs,
			ServerName: "localhost", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := framer.ReadFrame()
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("got %v, %v; want SETTINGS", frame, err)
	}
	if n, ok := settings.Value(http2.SettingMaxConcurrentStreams); !ok || n != maxStreams {
		t.Errorf("%d requests may run at once on one connection, want %d", n, maxStreams)
	}
}
