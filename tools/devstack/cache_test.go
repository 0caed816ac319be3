package devstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeTools creates shell scripts in a folder. alone replaces PATH by the folder; otherwise it comes first.
func fakeTools(t *testing.T, alone bool, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := dir
	if !alone {
		path += ":" + os.Getenv("PATH")
	}
	t.Setenv("PATH", path)
}

// wantEmpty checks that the cache has no finished and no half-finished program.
func wantEmpty(t *testing.T, cache string) {
	t.Helper()
	entries, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".lock") {
			t.Errorf("left in the cache: %s", entry.Name())
		}
	}
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestCacheDir(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/somewhere")
	t.Setenv("HOME", "/somewhere")
	t.Setenv("PENSTOCK_CACHE", "")
	if got, err := CacheDir(); err != nil || filepath.Base(got) != "penstock" || !strings.HasPrefix(got, "/somewhere/") {
		t.Errorf("got %q, %v", got, err)
	}
	t.Setenv("PENSTOCK_CACHE", "/elsewhere")
	if got, err := CacheDir(); err != nil || got != "/elsewhere" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFetchOnceAmongGoroutinesAndProcesses(t *testing.T) {
	cache := t.TempDir()
	fakeTools(t, false, map[string]string{
		"go": `echo built >> "$GOBIN/../built"; sleep 0.3; echo program > "$GOBIN/nats-server"`,
	})
	want := filepath.Join(cache, "nats-server-"+natsVersion, "nats-server")

	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if got, err := (&Fetcher{Cache: cache}).NATS(t.Context()); err != nil || got != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
		all.Go(func() {
			got, err := self(t, "fetcher", "PENSTOCK_CACHE="+cache).Output()
			if err != nil || string(got) != want+"\n" {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
	all.Wait()
	if built, err := os.ReadFile(filepath.Join(cache, "built")); err != nil || string(built) != "built\n" {
		t.Errorf("built %q, %v, want once", built, err)
	}

	begin := time.Now()
	var progress bytes.Buffer
	if _, err := (&Fetcher{Cache: cache, Progress: &progress}).NATS(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 50*time.Millisecond || progress.Len() > 0 {
		t.Errorf("what was there took %s and said %q", took, &progress)
	}
}

func TestBuildOnce(t *testing.T) {
	cache := t.TempDir()
	fakeTools(t, false, map[string]string{
		"go": `echo built >> ../built; cat recipe.yaml > "$1"; cat "$1"`,
	})
	build := GoBuild{
		Name:  "thing-v1",
		Files: map[string]string{"recipe.yaml": "name: thing"},
		Steps: []GoStep{{What: "generate thing", Args: []string{"source"}},
			{What: "build thing", Hint: "at once", Args: []string{"program"}}},
	}
	var progress bytes.Buffer
	f := &Fetcher{Cache: cache, Progress: &progress}
	first, err := f.Build(t.Context(), build)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"source", "program"} {
		if text, err := os.ReadFile(filepath.Join(first, name)); err != nil || string(text) != "name: thing" {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
	}
	if said := progress.String(); !strings.Contains(said, "build thing: at once") {
		t.Errorf("said %q", said)
	}
	if again, err := f.Build(t.Context(), build); err != nil || again != first {
		t.Errorf("got %q, %v, want %q", again, err, first)
	}
	if built, err := os.ReadFile(filepath.Join(cache, "built")); err != nil || string(built) != "built\nbuilt\n" {
		t.Errorf("ran go %q, %v, want once a step", built, err)
	}
	build.Files = map[string]string{"recipe.yaml": "name: other"}
	if other, err := f.Build(t.Context(), build); err != nil || other == first {
		t.Errorf("another recipe: got %q, %v", other, err)
	}
}

func TestFetchCancelled(t *testing.T) {
	cache := t.TempDir()
	fakeTools(t, false, map[string]string{
		"go": `echo half > "$GOBIN/nats-server"; touch "$GOBIN/../begun"; exec sleep 60`,
	})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for {
			if _, err := os.Stat(filepath.Join(cache, "begun")); err == nil || ctx.Err() != nil {
				cancel(cause)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	begin := time.Now()
	path, err := (&Fetcher{Cache: cache}).NATS(ctx)
	if path != "" || !errors.Is(err, cause) {
		t.Errorf("got %q, %v, want %v", path, err, cause)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %s to give up", took)
	}
	if err := os.Remove(filepath.Join(cache, "begun")); err != nil {
		t.Error(err)
	}
	wantEmpty(t, cache)
}

func TestFetchGivesUpWaitingForAnother(t *testing.T) {
	cache := t.TempDir()
	f := &Fetcher{Cache: cache}
	lock, err := f.lock(t.Context(), filepath.Join(cache, "nats-server-"+natsVersion+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.NATS(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestFetchAfterFetcherWasKilled(t *testing.T) {
	cache := t.TempDir()
	begun := filepath.Join(cache, "begun")
	fakeTools(t, false, map[string]string{
		"go": `echo half > "$GOBIN/nats-server"; [ -e "$GOBIN/../begun" ] || { touch "$GOBIN/../begun"; exec sleep 60; }
			echo whole > "$GOBIN/nats-server"`,
	})
	fetcher := self(t, "fetcher", "PENSTOCK_CACHE="+cache)
	if err := fetcher.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the first fetch to begin", func() bool { _, err := os.Stat(begun); return err == nil })
	if err := fetcher.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = fetcher.Wait()

	path, err := (&Fetcher{Cache: cache}).NATS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "whole\n" {
		t.Errorf("fetched %q, %v", text, err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*"+tmpMark+"*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestFetchShowsWhatTheToolPrintedLast(t *testing.T) {
	cache := t.TempDir()
	fakeTools(t, false, map[string]string{
		"go": `for i in $(seq 100 150); do echo "line $i"; done; printf "no such host" >&2; exit 3`,
	})
	_, err := (&Fetcher{Cache: cache}).NATS(t.Context())
	text := fmt.Sprint(err)
	for _, want := range []string{"fetch nats-server: build nats-server " + natsVersion, "exit status 3", "line 150",
		"no such host"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in the error: %s", want, text)
		}
	}
	if strings.Contains(text, "line 120") {
		t.Errorf("the error is too long: %s", text)
	}
	wantEmpty(t, cache)
}

func TestFetchWithoutTools(t *testing.T) {
	fakeTools(t, true, nil)
	t.Setenv("CC", "")
	f := &Fetcher{Cache: t.TempDir()}
	_, noGo := f.MinIO(t.Context())
	_, noNPM := f.ClickHouse(t.Context())
	_, noCompiler := f.clickhouseLauncher(t.Context())
	for want, err := range map[string]error{
		"go is missing: install Go 1.26 or newer": noGo,
		"npm is missing: install Node.js":         noNPM,
		"cc is missing: install a C compiler":     noCompiler,
	} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
