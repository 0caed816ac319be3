package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/receiver/tenant"
	"github.com/penstock/penstock/tools/devstack"
)

func TestCheckOptions(t *testing.T) {
	for _, tt := range []struct {
		change func(*Options)
		want   string
	}{
		{func(*Options) {}, ""},
		{func(o *Options) { o.Format = "csv" }, `--format: unknown format "csv"`},
		{func(o *Options) { o.Events = -1 }, "--events and --demo take a number of 1 or more"},
		{func(o *Options) { o.Exit = true }, "--exit goes with --events"},
		{func(o *Options) { o.JSON = true }, "--json goes with --events"},
		{func(o *Options) { o.Exit, o.JSON, o.Events = true, true, 5 }, ""},
		{func(o *Options) { o.Roll = time.Millisecond }, "--roll 1ms: at least 10ms"},
		{func(o *Options) { o.PortBase = 65530 }, "--port-base 65530: between 1 and 65528"},
		{func(o *Options) { o.PortBase = -1 }, "--port-base -1"},
		{func(o *Options) { o.PortBase = 65528 }, ""},
	} {
		o := Options{Format: "parquet", Roll: 5 * time.Second}
		tt.change(&o)
		err := o.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: got %v, want %q", o, err, tt.want)
		}
	}
}

func TestPorts(t *testing.T) {
	if got, want := portsFrom(20000), (Ports{20000, 20001, 20002, 20003, 20004, 20005, 20006, 20007}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := portsFrom(0); got.receiver != 8080 || got.tcp != 9000 || got.otlpGRPC != 4317 {
		t.Errorf("got %+v", got)
	}
	port, err := FreePort()
	if err != nil || port == 0 {
		t.Errorf("%d, %v", port, err)
	}
}

// A key is made once, for its owner's eyes alone.
func TestKeysAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	key, hash, err := Key(path)
	if err != nil || !strings.HasPrefix(key, "dev_") || len(key) < 20 {
		t.Fatalf("%q, %v", key, err)
	}
	if want, _ := config.ParseHash(hash); want != tenant.HashKey(key) {
		t.Errorf("%s is not the hash of %s", hash, key)
	}
	if again, _, err := Key(path); err != nil || again != key {
		t.Errorf("%q, then %q, %v", key, again, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	first, err := readSecrets(filepath.Dir(path))
	if err != nil || first.clickhouse == "" || first.minio == first.nats {
		t.Errorf("%+v, %v", first, err)
	}
	if again, err := readSecrets(filepath.Dir(path)); err != nil || again != first {
		t.Errorf("%+v, then %+v, %v", first, again, err)
	}
	if _, _, err := Key(filepath.Join(path, "below-a-file")); err == nil ||
		!strings.Contains(err.Error(), "keep a secret") {
		t.Errorf("got %v", err)
	}
}

// A folder has one stack at a time.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockData(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockData(dir); err == nil || !strings.Contains(err.Error(), "another penstock dev uses "+dir) {
		t.Errorf("a second one got %v", err)
	}
	unlock()
	if unlock, err := lockData(dir); err != nil {
		t.Error(err)
	} else {
		unlock()
	}
}

// Roles get the environment without overrides: they are in the file already.
func TestPlainEnviron(t *testing.T) {
	t.Setenv("PENSTOCK_BATCHER_ROLL_AGE", "1s")
	t.Setenv("PENSTOCK_TEST_CLOCK_SHIFT", "1")
	env := plainEnviron()
	if slices.Contains(env, "PENSTOCK_BATCHER_ROLL_AGE=1s") || !slices.Contains(env, "PENSTOCK_TEST_CLOCK_SHIFT=1") {
		t.Errorf("got %q", env)
	}
}

// What another program needs is in dev.json, and what a person needs on the screen.
func TestStateAndWelcome(t *testing.T) {
	var out bytes.Buffer
	st := &stack{opts: Options{Data: t.TempDir(), Roll: 5 * time.Second, Out: &out}, cfg: config.Default(),
		state: State{Receiver: "http://127.0.0.1:1", HTTP: "http://127.0.0.1:2", User: "u", Password: "pw", Key: "dev_k",
			Config: "/other/penstock.yaml", Pids: map[string]int{}}}
	st.Processes = []*devstack.Process{}
	if err := st.save(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(st.opts.Data, "dev.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got State
	if err := json.Unmarshal(text, &got); err != nil || got.Key != "dev_k" || got.Receiver != "http://127.0.0.1:1" {
		t.Errorf("got %s, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	st.welcome(1500 * time.Millisecond)
	for _, want := range []string{"Penstock is ready (1.5 s).", "\n  key             dev_k\n",
		"curl -sS http://127.0.0.1:1/v1/events -H 'Authorization: Bearer dev_k'",
		"Query its row, up to 8 s later:", "  penstock tail --config /other/penstock.yaml ", "curl -sS -u 'u:pw' 'http://127.0.0.1:2/?database=penstock'"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed\n%s\nwant %s", &out, want)
		}
	}
}

// In a folder whose configuration commands find, they need no flag.
func TestConfigFlag(t *testing.T) {
	t.Chdir(t.TempDir())
	path, err := filepath.Abs(filepath.Join(config.DevFolder, "penstock.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	st := &stack{state: State{Config: path}}
	if got, want := st.configFlag(), " --config "+path; got != want {
		t.Errorf("no configuration here: got %q, want %q", got, want)
	}
	if err := os.Mkdir(config.DevFolder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := st.configFlag(); got != "" {
		t.Errorf("the stack's configuration is here: got %q, want no flag", got)
	}
	if err := os.WriteFile("penstock.yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := st.configFlag(); got == "" {
		t.Error("another configuration is here: got no flag")
	}
}

// Few events go into a request where the rate is low.
func TestBatch(t *testing.T) {
	for demo, want := range map[int]int{0: 100, 5: 1, 200: 20, 1_000_000: 100} {
		if got := (&stack{opts: Options{Demo: demo}}).batch(); got != want {
			t.Errorf("at %d/s: %d events a request, want %d", demo, got, want)
		}
	}
}

// A role is ready when it answers 200; one that has ended is not waited for.
func TestAwaitReady(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	log := filepath.Join(t.TempDir(), "log")
	start := func(script string) *devstack.Process {
		t.Helper()
		p, err := devstack.Start(t.Context(),
			devstack.Command{Name: "role", Path: "/bin/sh", Args: []string{"-c", script}, LogPath: log})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		return p
	}
	if err := AwaitReady(t.Context(), http.DefaultClient, start("exec sleep 60"), s.URL); err != nil || asked != 3 {
		t.Errorf("%v after %d questions", err, asked)
	}
	err := AwaitReady(t.Context(), http.DefaultClient, start("exit 3"), "http://127.0.0.1:1")
	if err == nil || !strings.HasPrefix(err.Error(), "role ended: ") {
		t.Errorf("a role that ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := AwaitReady(ctx, http.DefaultClient, start("exec sleep 60"), "http://127.0.0.1:1"); err == nil {
		t.Error("a stack that was stopped is waited for")
	}
}
