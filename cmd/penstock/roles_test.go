package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/version"
)

// output collects what a command prints while it runs.
type output struct {
	mu  sync.Mutex
	all strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// Each log line of a role has the role and the version, and an error about a field where the value comes from. A bucket
// that is away does not keep a receiver from starting.
func TestLogOfARole(t *testing.T) {
	t.Chdir(t.TempDir())
	text := "process: {log_format: json, drain: 1s}\nreceiver: {listen: '127.0.0.1:0', name: r1}\n" +
		"admin: {listen: '127.0.0.1:0'}\nstorage:\n  notify: none\n  endpoint: http://127.0.0.1:1\n" +
		"  access_key: a\n  secret_key: b\n"
	if err := os.WriteFile("penstock.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log output
	done := make(chan error, 1)
	go func() { done <- run(ctx, streams{io.Discard, &log}, []string{"receive"}) }()
	await := func(text string) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !strings.Contains(log.String(), text); {
			if time.Now().After(end) {
				t.Fatalf("no %q in\n%s", text, &log)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	await("bucket cannot be used")
	// SIGHUP does not stop it.
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await("SIGHUP ignored")
	select {
	case err := <-done:
		t.Fatalf("SIGHUP ended the receiver: %v\n%s", err, &log)
	case <-time.After(100 * time.Millisecond):
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	messages := map[string]map[string]any{}
	for line := range strings.Lines(log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		if fields["role"] != "receive" || fields["version"] != version.Current().Version {
			t.Errorf("no role, or no version: %s", line)
		}
		messages[fields["msg"].(string)] = fields
	}
	const want = `storage.endpoint "http://127.0.0.1:1" (from penstock.yaml:6): list bucket penstock: dial tcp 127.0.0.1:1: ` +
		"connect: connection refused; start the store, or correct the URL"
	if got := messages["bucket cannot be used; events wait on disk"]["error"]; got != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got := messages["draining"]["deadline_seconds"]; got != 1.0 {
		t.Errorf("draining: got deadline_seconds %v in\n%s", got, &log)
	}
}

// A role whose port is taken names the field and its place, and ends with an error.
func TestRoleThatCannotStart(t *testing.T) {
	t.Chdir(t.TempDir())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	t.Setenv("PENSTOCK_STORAGE_NOTIFY", "none")
	t.Setenv("PENSTOCK_ADMIN_LISTEN", taken.Addr().String())
	_, errs, err := said(t, "receive")
	if want := `admin.listen "` + taken.Addr().String() + `" (from PENSTOCK_ADMIN_LISTEN): another process uses this address; ` +
		"stop that process, or set another address; each role on a machine needs a separate one"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s\n%s", err, want, errs)
	}
}

// A server's address has to be a URL, and its token the right one.
func TestServerFlag(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tt := range []struct{ args, want string }{
		{"status --server 127.0.0.1:42081", `--server "127.0.0.1:42081": want a URL, such as http://127.0.0.1:42081`},
		{"verify --server ftp://h", `--server "ftp://h": want a URL`},
		{"dlq list --server=", `--server "": want a URL, such as http://127.0.0.1:8081`},
	} {
		if _, errs, err := said(t, strings.Fields(tt.args)...); err == nil || !strings.Contains(errs, tt.want) {
			t.Errorf("%s: got %v %s, want %s", tt.args, err, errs, tt.want)
		}
	}
	if _, _, err := said(t, "status", "--server", "http://127.0.0.1:1"); err == nil ||
		!strings.Contains(err.Error(), "--server needs a token") {
		t.Errorf("without a token: %v", err)
	}
}
