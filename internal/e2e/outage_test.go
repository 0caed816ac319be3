package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/traffic"
)

// send sends n events and fails the test unless all are acknowledged.
func (s *stack) send(r *role, run string, n, rate int) {
	s.t.Helper()
	var sent traffic.Sent
	if err := traffic.Run(s.t.Context(), traffic.NewClient(r.URL+"/v1/events", key, 4), run, n, 50, 4, rate,
		&sent); err != nil {
		s.t.Fatal(err)
	}
	if got := sent.Accepted.Load(); got != int64(n) {
		s.t.Fatalf("%d accepted of %d", got, n)
	}
}

// ClickHouse is away while many objects come. (Times are compressed: a roll of
// 200 ms for one of 90 s makes these 15 s two hours of objects.) The receiver
// does not notice; nothing counts as an attempt; then all is loaded.
func TestClickHouseAway(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_ROLL_AGE=200ms")
	l := s.start("l1", "load")
	s.send(r, "before", 500, 0)
	s.rows("events", 500)
	s.clickhouse.Kill()
	s.send(r, "during", 30_000, 2000)
	if n := l.metric(`penstock_loader_failures_total{pipeline="events"`); n != 0 {
		t.Errorf("%v failures are counted against objects", n)
	}
	if n := l.metric(`penstock_loader_paused{pipeline="events"`); n != 1 {
		t.Error("the breaker is closed")
	}
	began := time.Now()
	if err := s.clickhouse.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.rows("events", 30_500)
	objects := one[uint64](s, "SELECT count() FROM loads FINAL WHERE status = 'loaded'")
	t.Logf("%d objects, 30000 events caught up with in %s", objects, time.Since(began).Round(100*time.Millisecond))
	if objects < 30 {
		t.Errorf("%d objects: too few for an outage of many", objects)
	}
	s.mustVerify()
}

// A table that takes nothing for a while, though the server answers.
func TestTooManyParts(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_ROLL_AGE=200ms")
	l := s.start("l1", "load")
	s.send(r, "before", 100, 0)
	s.rows("events", 100)
	for _, query := range []string{"SYSTEM STOP MERGES events",
		"ALTER TABLE events MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1"} {
		if err := s.db.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	s.send(r, "during", 4000, 1000)
	eventually(t, 20*time.Second, "the breaker opens", func() error {
		if n := l.metric(`penstock_loader_outages_total{pipeline="events"`); n == 0 {
			return fmt.Errorf("no outage")
		}
		return nil
	})
	if n := l.metric(`penstock_loader_failures_total{pipeline="events"`); n != 0 {
		t.Errorf("%v failures are counted against objects", n)
	}
	for _, query := range []string{"ALTER TABLE events RESET SETTING parts_to_throw_insert, parts_to_delay_insert",
		"SYSTEM START MERGES events"} {
		if err := s.db.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	s.rows("events", 4100)
	s.mustVerify()
}

// With a wrong password, the loader waits until it is fixed, and reports it.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	l := s.launch("l1", "load", "PENSTOCK_CLICKHOUSE_PASSWORD=wrong")
	s.send(r, "x", 100, 0)
	select {
	case <-l.Done():
		t.Fatalf("the loader ended: %v", l.Err())
	case <-time.After(3 * time.Second):
	}
	l.Kill()
	s.start("l2", "load")
	s.rows("events", 100)
}

// NATS away at the start and in the middle.
func TestNATSAway(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	r := s.start("r1", "receive")
	s.nats.Kill()
	l := s.start("l1", "load", "PENSTOCK_SWEEP_EVERY=2s", "PENSTOCK_SWEEP_GRACE=1s")
	s.send(r, "a", 1000, 0)
	time.Sleep(2 * time.Second) // notifications of now are lost: this MinIO keeps none
	if err := s.nats.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.rows("events", 1000)
	s.nats.Kill()
	s.send(r, "b", 1000, 0)
	time.Sleep(2 * time.Second)
	if err := s.nats.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.rows("events", 2000)
	l.term()
	s.mustVerify()
}

// The bucket is away and a file system of 64 MiB fills up under load: 503, and no event that was
// acknowledged is lost; when the bucket takes objects again, so does the receiver.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	dir := filepath.Join(s.dir, "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "penstock-test",
		dir).CombinedOutput(); err != nil {
		t.Fatalf("mount needs root: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	s.minio.Kill()
	r := s.start("r1", "receive", "PENSTOCK_BATCHER_DIR="+dir, "PENSTOCK_BATCHER_ROLL_AGE=1s",
		"PENSTOCK_BATCHER_MAX_SEGMENT=4MiB", "PENSTOCK_BATCHER_MAX_DISK=8GiB")
	const total = 12_000 // events of 3 KB: more than 24 MiB hold
	var accepted atomic.Int64
	var clients sync.WaitGroup
	for w := range 4 {
		clients.Go(func() {
			c := traffic.NewClient(r.URL+"/v1/events", key, 1)
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			filler := make([]byte, 1500)
			for range total / 4 / 20 {
				var body bytes.Buffer
				for range 20 {
					for i := range filler {
						filler[i] = byte(rnd.Uint32())
					}
					fmt.Fprintf(&body, `{"name":"big","event_id":"%x","filler":"%x"}`+"\n", filler[:16], filler)
				}
				a, err := c.Send(t.Context(), body.Bytes())
				if err != nil {
					t.Error(err)
					return
				}
				accepted.Add(int64(a.Accepted))
			}
		})
	}
	eventually(t, time.Minute, "the disk is full", func() error {
		if n := r.metric(`penstock_receiver_requests_total{status="503"`); n < 20 {
			return fmt.Errorf("%v requests were answered with 503, %d events accepted", n, accepted.Load())
		}
		return nil
	})
	full := accepted.Load()
	if full == 0 {
		t.Error("nothing was accepted before the disk was full")
	}
	if err := s.minio.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	clients.Wait() // they go on until everything is taken
	if n := accepted.Load(); n != total || n <= full {
		t.Errorf("%d accepted, %d of them before, want %d", n, full, total)
	}
	// The drain's deadline is meant for a usual backlog, not for a full disk.
	eventually(t, 3*time.Minute, "all batches are stored", func() error {
		if n := r.metric(`penstock_batcher_sealed_batches{pipeline="events"}`); n > 0 {
			return fmt.Errorf("%v wait", n)
		}
		return nil
	})
	r.term()
	// MinIO that has just started takes objects before it knows its rules: they have
	// no notification, and are found by a sweep.
	if out, err := s.run("sweep"); err != nil {
		t.Fatalf("sweep: %v\n%s", err, out)
	}
	s.start("l1", "load")
	s.rows("events", uint64(accepted.Load()))
	t.Logf("%d events accepted before the disk was full, %d in all", full, accepted.Load())
	s.mustVerify()
}
