package tlsfiles

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/testing/tlstest"
)

var quiet = slog.New(slog.DiscardHandler)

// handshake connects a client to a server, and returns the names in the server's certificate and what each side says.
func handshake(t *testing.T, server, client *tls.Config) (names []string, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			defer conn.Close()
			s := tls.Server(conn, server)
			if err = s.HandshakeContext(t.Context()); err == nil {
				_, err = s.Write([]byte("x"))
			}
		}
		done <- err
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := tls.Client(conn, client)
	clientErr = c.HandshakeContext(t.Context())
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1)) // of TLS 1.3: only now the server has judged the client's certificate
	}
	serverErr = <-done
	if certs := c.ConnectionState().PeerCertificates; len(certs) > 0 {
		names = certs[0].DNSNames
	}
	return names, serverErr, clientErr
}

func clientOf(t *testing.T, c Client) *tls.Config {
	t.Helper()
	cfg, err := c.Config(quiet)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestHandshake(t *testing.T) {
	ca, other := tlstest.NewCA(t), tlstest.NewCA(t)
	cert, key := ca.Issue(t, t.TempDir(), "penstock")
	ours, oursKey := ca.Issue(t, t.TempDir(), "client")
	theirs, theirsKey := other.Issue(t, t.TempDir(), "client")
	for _, tt := range []struct {
		name                   string
		server                 Server
		client                 Client
		serverWant, clientWant string // errors; empty: none
	}{
		{"without client certificates", Server{Cert: cert, Key: key}, Client{CA: ca.File, ServerName: "penstock"}, "", ""},
		{"another name", Server{Cert: cert, Key: key}, Client{CA: ca.File, ServerName: "elsewhere"}, "bad certificate",
			"not elsewhere"},
		{"another CA", Server{Cert: cert, Key: key}, Client{CA: other.File, ServerName: "penstock"}, "bad certificate",
			"unknown authority"},
		{"the system's CAs", Server{Cert: cert, Key: key}, Client{ServerName: "penstock"}, "bad certificate",
			"unknown authority"},
		{"a client certificate", Server{cert, key, ca.File}, Client{ca.File, ours, oursKey, "penstock"}, "", ""},
		{"none of a client", Server{cert, key, ca.File}, Client{CA: ca.File, ServerName: "penstock"},
			"didn't provide a certificate", "certificate required"},
		{"a client of another CA", Server{cert, key, ca.File}, Client{ca.File, theirs, theirsKey, "penstock"},
			"unknown authority", "unknown certificate authority"},
	} {
		server, err := tt.server.Config(quiet)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		names, serverErr, clientErr := handshake(t, server, clientOf(t, tt.client))
		wantError(t, tt.name+": server", serverErr, tt.serverWant)
		wantError(t, tt.name+": client", clientErr, tt.clientWant)
		if tt.clientWant == "" && (len(names) != 1 || names[0] != "penstock") {
			t.Errorf("%s: the certificate is for %q", tt.name, names)
		}
	}
}

func wantError(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s: got %v, want %q", what, err, want)
	}
}

func TestOldVersionsAreRefused(t *testing.T) {
	ca := tlstest.NewCA(t)
	cert, key := ca.Issue(t, t.TempDir(), "penstock")
	server, err := Server{Cert: cert, Key: key}.Config(quiet)
	if err != nil {
		t.Fatal(err)
	}
	old := clientOf(t, Client{CA: ca.File, ServerName: "penstock"})
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	_, serverErr, clientErr := handshake(t, server, old)
	wantError(t, "server", serverErr, "unsupported versions")
	wantError(t, "client", clientErr, "protocol version")
}

// What cannot be read at the start is an error that names the file.
func TestConfigIsRefused(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, dir, "penstock")
	_, otherKey := ca.Issue(t, t.TempDir(), "penstock")
	none, text := filepath.Join(dir, "none.pem"), filepath.Join(dir, "text.pem")
	write(t, text, "no PEM")
	for _, tt := range []struct {
		name   string
		config func() (*tls.Config, error)
		want   []string
	}{
		{"no certificate", func() (*tls.Config, error) { return Server{Cert: none, Key: key}.Config(quiet) },
			[]string{"read certificate " + none, "no such file"}},
		{"a certificate that is text", func() (*tls.Config, error) { return Server{Cert: text, Key: key}.Config(quiet) },
			[]string{text, "PEM"}},
		{"the key of another", func() (*tls.Config, error) { return Server{Cert: cert, Key: otherKey}.Config(quiet) },
			[]string{otherKey, "does not match"}},
		{"no CA of clients", func() (*tls.Config, error) { return Server{cert, key, none}.Config(quiet) },
			[]string{"read CA", none}},
		{"a CA that is text", func() (*tls.Config, error) { return Client{CA: text}.Config(quiet) },
			[]string{"read CA " + text, "no certificate in PEM"}},
		{"no CA", func() (*tls.Config, error) { return Client{CA: none}.Config(quiet) }, []string{"read CA", none}},
		{"no client certificate", func() (*tls.Config, error) { return Client{Cert: none, Key: key}.Config(quiet) },
			[]string{none}},
	} {
		c, err := tt.config()
		for _, want := range tt.want {
			wantError(t, tt.name, err, want)
		}
		if c != nil {
			t.Errorf("%s: a configuration comes with the error", tt.name)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Files that change are read again within a second. Those that cannot be used replace nothing.
func TestCertificateChanges(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, dir, "first")
	bubble.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		server, err := Server{Cert: cert, Key: key}.Config(slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		served := func() string {
			c, err := server.GetConfigForClient(nil)
			if err != nil {
				t.Fatal(err)
			}
			return c.Certificates[0].Leaf.DNSNames[0]
		}
		says := func(when, name, logged string) {
			t.Helper()
			if got := served(); got != name {
				t.Errorf("%s: the certificate of %s is served, want %s", when, got, name)
			}
			if n := strings.Count(log.String(), logged); logged != "" && n != 1 {
				t.Errorf("%s: %q is logged %d times, want once:\n%s", when, logged, n, &log)
			}
			log.Reset()
		}
		says("at the start", "first", "")
		ca.Issue(t, dir, "second")
		says("at once", "first", "")
		time.Sleep(lookEvery)
		says("a second later", "second", "changed files are in use")

		write(t, key, "half writ")
		time.Sleep(lookEvery)
		says("with a broken key", "second", "changed files cannot be used")
		time.Sleep(lookEvery)
		says("another second later", "second", "changed files cannot be used") // as long as it is so
		if err := os.Remove(cert); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lookEvery)
		says("without a certificate", "second", "no such file")
		ca.Issue(t, dir, "third")
		time.Sleep(lookEvery)
		says("when both are there again", "third", "changed files are in use")
		time.Sleep(time.Hour)
		says("without a change", "third", "")
	})
}

// Kubernetes swaps a link to a folder: size and time of the file may be those of the one before.
func TestLinkIsSwapped(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for name, text := range map[string]string{"a": "secret-1", "b": "secret-2"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "token"), text)
		if err := os.Chtimes(filepath.Join(dir, name, "token"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "data")
	swap := func(to string) {
		t.Helper()
		if err := errors.Join(os.Symlink(to, link+".new"), os.Rename(link+".new", link)); err != nil {
			t.Fatal(err)
		}
	}
	swap("a")
	bubble.Test(t, func(t *testing.T) {
		s, err := OpenSecret(filepath.Join(link, "token"), quiet)
		if err != nil || s.Text() != "secret-1" {
			t.Fatalf("got %v", err)
		}
		swap("b")
		time.Sleep(lookEvery)
		if got := s.Text(); got != "secret-2" {
			t.Errorf("got %s after the link was swapped", got)
		}
	})
}

func TestClientCertificateChanges(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := t.TempDir()
	cert, key := ca.Issue(t, dir, "first")
	bubble.Test(t, func(t *testing.T) {
		client := clientOf(t, Client{Cert: cert, Key: key})
		ca.Issue(t, dir, "second")
		time.Sleep(lookEvery)
		got, err := client.GetClientCertificate(nil)
		if err != nil || got.Leaf.DNSNames[0] != "second" {
			t.Errorf("the certificate of %q is sent, %v", got.Leaf.DNSNames, err)
		}
	})
}

func TestSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if _, err := OpenSecret(path, quiet); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	for _, empty := range []string{"", "\n", "\r\n"} {
		write(t, path, empty)
		_, err := OpenSecret(path, quiet)
		wantError(t, "an empty file", err, "read secret: "+path+" is empty")
	}
	write(t, path, " with spaces \r\n")
	bubble.Test(t, func(t *testing.T) {
		s, err := OpenSecret(path, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := s.Text(), " with spaces "; got != want {
			t.Errorf("got %q, want %q: only line ends are cut off", got, want)
		}
		write(t, path, "")
		time.Sleep(lookEvery)
		if got := s.Text(); got != " with spaces " {
			t.Errorf("an emptied file: got %q, want the secret before", got)
		}
		write(t, path, "other")
		time.Sleep(lookEvery)
		if got := s.Text(); got != "other" {
			t.Errorf("got %q, want other", got)
		}
	})
}
