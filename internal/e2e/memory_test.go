package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/testing/load"
	"github.com/penstock/penstock/internal/traffic"
)

// Memory limits of the processes, RSS, at any rate and with any backlog.
const (
	receiveMiB = 256
	loadMiB    = 512
)

// Memory stays within the limits and no event is lost: for a receiver whose bucket is unreachable, for one that replays
// this backlog after a kill, and for the loader of the result. PENSTOCK_MEMORY_EVENTS=11000000 makes it 4 GiB of log.
func TestMemory(t *testing.T) {
	total := 300_000
	if text := os.Getenv("PENSTOCK_MEMORY_EVENTS"); text != "" {
		var err error
		if total, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	s := newStack(t)
	start := func(name, command string, env ...string) *role {
		r := s.prepare(name, command, append(env, "PENSTOCK_BATCHER_DIR="+s.dir+"/log", "PENSTOCK_BATCHER_ROLL_AGE=5s",
			"PENSTOCK_RECEIVER_NAME=memory")...)
		r.binary = plain // the race detector takes many times the memory
		r.spawn()
		r.awaitReady()
		return r
	}
	peak := func(what string, r *role, limit int64) {
		t.Helper()
		n, err := load.PeakRSS(r.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if t.Logf("%s: %d MiB at most", what, n>>20); n>>20 > limit {
			t.Errorf("%s: %d MiB, the limit is %d", what, n>>20, limit)
		}
	}

	r := start("away", "receive", "PENSTOCK_STORAGE_ENDPOINT=http://127.0.0.1:1")
	var sent traffic.Sent
	if err := traffic.Run(t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 4), "memory", total, 500, 4, 0,
		&sent); err != nil {
		t.Fatal(err)
	}
	total += sendMedium(t, r.URL)
	peak("the bucket is away", r, receiveMiB)
	r.Kill()
	<-r.Done()

	r = start("replay", "receive")
	eventually(t, 5*time.Minute, "all are stored", func() error {
		if n := r.metric("penstock_batcher_object_rows_total{"); int(n) < total {
			return fmt.Errorf("%v rows", n)
		}
		return nil
	})
	peak("replay", r, receiveMiB)
	r.term()

	l := start("l", "load")
	eventually(t, 10*time.Minute, "all are loaded", func() error {
		if n := one[uint64](s, "SELECT sum(rows) FROM loads FINAL WHERE status = 'loaded' AND pipeline = 'events'"); int(
			n) < total {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	peak("load", l, loadMiB)
	if n := one[uint64](s, "SELECT uniqExact(event_id) FROM events"); int(n) != total {
		t.Errorf("%d events are rows, want %d", n, total)
	}
}

// sendMedium concurrently sends bodies that are barely small enough for checks in memory. Their events have members
// next to the name, so they are copied. It returns the number of events.
func sendMedium(t *testing.T, url string) int {
	t.Helper()
	const connections, bodies, events = 64, 4, 3000
	body := []byte(strings.Repeat(
		`{"name":"level_end","level":7,"score":123456,"weapon":"sword","note":"`+strings.Repeat("x", 220)+"\"}\n", events))
	c := traffic.NewClient(url+"/v1/events", key, connections)
	var g errgroup.Group
	for range connections {
		g.Go(func() error {
			for range bodies {
				if a, err := c.Send(t.Context(), body); err != nil || a.Accepted != events {
					return fmt.Errorf("%d of %d accepted: %w", a.Accepted, events, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return connections * bodies * events
}
