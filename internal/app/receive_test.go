package app

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/receiver/tenant"
)

// A projects file that cannot be used any more is named by readyz and status, and the receiver stays ready.
func TestReadyzOfProjects(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<ListBucketResult/>")
	}))
	defer store.Close()
	path := filepath.Join(t.TempDir(), "projects.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("projects: {}\n")
	t.Setenv("PENSTOCK_RECEIVER_PROJECTS", path)
	_, admin, stop := startReceive(t, store.URL)
	defer stop()
	awaitAnswer(t, "http://"+admin+"/readyz", 200, "ok\n")
	write("projects: [\n")
	awaitAnswer(t, "http://"+admin+"/readyz", 200, "ok\nreceiver.projects: "+path)
	awaitAnswer(t, "http://"+admin+"/status", 200, `"projects":"receiver.projects: `+path)
}

// If a store rejects what Penstock needs, readyz, status and metrics say so. A receiver that has stored nothing since
// its start is then not ready. One that has stored something continues, and reports what is waiting.
func TestReadyzOfRefusals(t *testing.T) {
	var put, head atomic.Int32
	put.Store(http.StatusNotImplemented)
	head.Store(http.StatusForbidden)
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodGet { // the bucket's listing
			io.WriteString(w, "<ListBucketResult/>")
			return
		}
		w.WriteHeader(int(map[string]*atomic.Int32{http.MethodPut: &put, http.MethodHead: &head}[r.Method].Load()))
	}))
	defer store.Close()
	listen, admin, stop := startReceive(t, store.URL)

	awaitAnswer(t, "http://"+admin+"/readyz", 200, "ok\n")
	event := `{"name":"a"}`
	send := func() {
		t.Helper()
		resp, err := http.Post("http://"+listen+"/v1/events?key=key", "application/json", strings.NewReader(event))
		if err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("got %v, %v", resp, err)
		}
		resp.Body.Close()
	}
	send()
	awaitAnswer(t, "http://"+admin+"/readyz", 503, "it has to support conditional PUT")
	awaitAnswer(t, "http://"+admin+"/status", 200, "it has to support conditional PUT")
	awaitAnswer(t, "http://"+admin+"/metrics", 200, `penstock_batcher_refused_batches{pipeline="events"} 1`)
	awaitAnswer(t, "http://"+admin+"/metrics", 200,
		`penstock_batcher_refusals_total{missing="conditional PUT",pipeline="events"}`)
	send() // to disk

	put.Store(http.StatusOK)
	awaitAnswer(t, "http://"+admin+"/metrics", 200, `penstock_batcher_sealed_batches{pipeline="events"} 0`)
	awaitAnswer(t, "http://"+admin+"/readyz", 200, "ok\n")

	put.Store(http.StatusPreconditionFailed)
	send()
	awaitAnswer(t, "http://"+admin+"/readyz", 200, "ok\nevents: batches wait on disk: ")
	awaitAnswer(t, "http://"+admin+"/readyz", 200, "s3:GetObject")
	put.Store(http.StatusOK)
	awaitAnswer(t, "http://"+admin+"/metrics", 200, `penstock_batcher_refused_batches{pipeline="events"} 0`)
	stop()
}

// While the clock is wrong, no listener takes events, and the status says why.
func TestWrongClockRefusesOnEveryListener(t *testing.T) {
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(2*time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusNotFound)
	}))
	defer store.Close()
	grpc := freeAddress(t)
	t.Setenv("PENSTOCK_RECEIVER_OTLP_GRPC_LISTEN", grpc)
	listen, admin, stop := startReceive(t, store.URL)
	awaitAnswer(t, "http://"+admin+"/readyz", 503, "behind the store's")
	awaitAnswer(t, "http://"+admin+"/status", 200,
		"every event is refused: this machine's clock is 2h0m0s behind the store's")

	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	for url, client := range map[string]*http.Client{
		"http://" + listen + "/v1/events?key=key": http.DefaultClient,
		"http://" + grpc + "/opentelemetry.proto.collector.logs.v1.LogsService/Export": {
			Transport: &http.Transport{Protocols: &h2c}},
	} {
		resp, err := client.Post(url, "application/grpc", strings.NewReader("\x00\x00\x00\x00\x00"))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body) // the trailer follows
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable && resp.Trailer.Get("Grpc-Status") != "14" {
			t.Errorf("%s: got %s %v, want 503 or gRPC's UNAVAILABLE", url, resp.Status, resp.Trailer)
		}
	}
	stop()
}

// startReceive runs a receiver that stores into a bucket at endpoint. stop drains it and fails the test if it fails.
func startReceive(t *testing.T, endpoint string) (listen, admin string, stop func()) {
	t.Helper()
	listen, admin = freeAddress(t), freeAddress(t)
	for name, value := range map[string]string{
		"STORAGE_ENDPOINT": endpoint, "STORAGE_NOTIFY": "none", "STORAGE_PATH_STYLE": "true",
		"STORAGE_ACCESS_KEY": "a", "STORAGE_SECRET_KEY": "s", "RECEIVER_LISTEN": listen, "ADMIN_LISTEN": admin,
		"RECEIVER_KEYS": "[{project: a, sha256: " + hashOf("key") + "}]", "PROCESS_DRAIN": "1s",
		"BATCHER_DIR": filepath.Join(t.TempDir(), "wal"), "BATCHER_ROLL_AGE": "50ms",
		"BATCHER_BACKOFF_MIN": "1ms", "BATCHER_BACKOFF_MAX": "10ms",
	} {
		t.Setenv("PENSTOCK_"+name, value)
	}
	t.Chdir(t.TempDir())
	cfg, err := config.Load("", os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	role, err := NewReceive(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- role.Run(ctx) }()
	return listen, admin, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the receiver ended with %v", err)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// awaitAnswer asks until an answer has the status and the text.
func awaitAnswer(t *testing.T, url string, status int, text string) {
	t.Helper()
	last := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode == status && strings.Contains(string(body), text) {
			return
		}
		last = fmt.Sprintf("%d %.2000s", resp.StatusCode, body)
	}
	t.Fatalf("%s: want %d and %q, got %s", url, status, text, last)
}

func hashOf(key string) string {
	sum := tenant.HashKey(key)
	return hex.EncodeToString(sum[:])
}
