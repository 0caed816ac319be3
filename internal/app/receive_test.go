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
	"github.com/penstock/penstock/receiver"
)

// A store that refuses what is needed is named by readyz, status and metrics. A receiver that has stored nothing since its
// start is not ready then; one that has goes on accepting, and says what waits.
func TestReadyzOfRefusals(t *testing.T) {
	var put, head atomic.Int32
	put.Store(http.StatusNotImplemented)
	head.Store(http.StatusForbidden)
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(int(map[string]*atomic.Int32{http.MethodPut: &put, http.MethodHead: &head}[r.Method].Load()))
	}))
	defer store.Close()
	listen, admin := freeAddress(t), freeAddress(t)
	for name, value := range map[string]string{
		"STORAGE_ENDPOINT": store.URL, "STORAGE_NOTIFY": "none", "STORAGE_PATH_STYLE": "true", "STORAGE_ACCESS_KEY": "a", "STORAGE_SECRET_KEY": "s",
		"RECEIVER_LISTEN": listen, "ADMIN_LISTEN": admin, "RECEIVER_KEYS": "[{project: a, sha256: " + hashOf("key") + "}]", "PROCESS_DRAIN": "1s",
		"BATCHER_DIR": filepath.Join(t.TempDir(), "wal"), "BATCHER_ROLL_AGE": "50ms", "BATCHER_BACKOFF_MIN": "1ms", "BATCHER_BACKOFF_MAX": "10ms",
	} {
		t.Setenv("PENSTOCK_"+name, value)
	}
	t.Chdir(t.TempDir())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	cfg, err := config.Load("", os.Environ())
	if err != nil {
		t.Fatal(err)
	}
	role, err := NewReceive(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go func() { done <- role.Run(ctx) }()

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
	awaitAnswer(t, "http://"+admin+"/metrics", 200, `penstock_batcher_refusals_total{missing="conditional PUT",pipeline="events"}`)
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
	if err := <-done; err != nil {
		t.Errorf("the receiver ended with %v", err)
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
	sum := receiver.HashKey(key)
	return hex.EncodeToString(sum[:])
}
