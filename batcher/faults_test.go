package batcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/penstock/penstock/batcher/wal/waltest"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/prometheus/client_golang/prometheus"
)

// clients append events with and without blobs, at each durability, and note the answers.
type clients struct {
	next           uint64
	promised       map[uint64]bool // acknowledged from disk or bucket
	lossy, refused map[uint64]bool // acknowledged from memory; rejected
	dead           func() bool     // nobody reads the answer; nil: answers are read
}

func newClients() *clients {
	return &clients{next: 1, promised: map[uint64]bool{}, lossy: map[uint64]bool{}, refused: map[uint64]bool{}}
}

func (c *clients) send(ctx context.Context, b *Batcher, d pipeline.Durability, blobs int) error {
	events := []pipeline.Event{event(c.next, 10), event(c.next+1, 500)}
	c.next += 2
	var all []pipeline.Blob
	if blobs > 0 {
		all = append(withBlobs(&events[0], 0, blobs), withBlobs(&events[1], 1, 1)...)
	}
	_, err := appendWait(ctx, b, events, all, d)
	if c.dead != nil && c.dead() {
		return err
	}
	for _, e := range events {
		switch {
		case err == nil && d == pipeline.Memory:
			c.lossy[idOf(e)] = true
		case err == nil:
			c.promised[idOf(e)] = true
		case errors.Is(err, ErrUnavailable) || errors.Is(err, ErrFull) || errors.Is(err, ErrClosed):
			c.refused[idOf(e)] = true
		}
	}
	return err
}

// want compares the stored events with the answers to the clients.
func (c *clients) want(t *testing.T, store *fakeStore, lossy bool, at string) {
	t.Helper()
	got := store.ids(t)
	for _, id := range got {
		if c.refused[id] {
			t.Errorf("%s: event %d was refused and is stored", at, id)
		}
	}
	for id := range c.promised {
		if !slices.Contains(got, id) {
			t.Errorf("%s: event %d was acknowledged and is not stored", at, id)
		}
	}
	for id := range c.lossy {
		if !lossy && !slices.Contains(got, id) {
			t.Errorf("%s: event %d was acknowledged from memory and is not stored", at, id)
		}
	}
	for id, err := range store.broken {
		t.Errorf("%s: event %d: %v", at, id, err)
	}
}

// A process that is killed at any operation on its files, one after the other,
// loses nothing that it has acknowledged, and stores nothing twice.
func TestKilledAtEveryOperation(t *testing.T) {
	last := false
	for at := 1; !last; at++ {
		bubble.Test(t, func(t *testing.T) {
			opts := options()
			opts.RollRows = 5
			fs, store, c := waltest.New(), newStore(), newClients()
			r := build(t, opts, fs, store)
			var n atomic.Int64
			c.dead = func() bool { return n.Load() >= int64(at) }
			fs.Fail(func(op, path string) error { // nothing happens from this operation on
				if n.Add(1) >= int64(at) {
					return waltest.ErrFault
				}
				return nil
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			if r.Open() == nil {
				go func() { done <- r.Run(ctx) }()
				for i := range 12 {
					c.send(ctx, r.Batcher, pipeline.Durability(i%3), i%4)
					time.Sleep(time.Second)
				}
			} else {
				done <- nil
			}
			synctest.Wait()
			last = n.Load() < int64(at)
			after := fs.Kill()
			cancel()
			<-done
			again := start(t, opts, after, store)
			again.mustStop()
			c.want(t, store, true, fmt.Sprintf("killed at operation %d", at))
			names, _ := after.ReadDir(opts.Dir)
			if names = slices.DeleteFunc(names, func(s string) bool { return s == "SEQ" || s == "SEQ.tmp" }); len(names) > 0 {
				t.Errorf("killed at operation %d: %v are left", at, names)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// Operations that fail at a rate cause delays and rejections. They lose no acknowledged events, not even those
// acknowledged from memory.
func TestFaultRates(t *testing.T) {
	for _, rate := range []float64{0, 0.1, 0.9} {
		for _, ops := range []string{"write sync", "open remove", "write sync open remove rename syncdir"} {
			t.Run(fmt.Sprint(rate, " ", ops), func(t *testing.T) {
				bubble.Test(t, func(t *testing.T) {
					opts := options()
					opts.RollRows = 20
					fs, c := waltest.New(), newClients()
					r := start(t, opts, fs, newStore())
					chance := rand.New(rand.NewPCG(7, uint64(len(ops))))
					fs.Fail(func(op, _ string) error {
						if strings.Contains(ops+" ", op+" ") && chance.Float64() < rate {
							return waltest.ErrFault
						}
						return nil
					})
					taken := 0
					for i := range 300 {
						if c.send(t.Context(), r.Batcher, pipeline.Durability(i%3), i%4%3) == nil {
							taken++
						}
						time.Sleep(time.Duration(i%7) * 300 * time.Millisecond)
					}
					fs.Fail(nil)
					r.mustStop()
					c.want(t, r.store, false, "at the end")
					if least := map[float64]int{0: 300, 0.1: 100, 0.9: 1}[rate]; taken < least {
						t.Errorf("%d of 300 were taken, want %d at least", taken, least)
					}
					if s := r.Stats(); s.Disk != 0 || s.Sealed != 0 {
						t.Errorf("stats %+v at the end", s)
					}
					start(t, opts, fs, r.store).mustStop() // a file that was begun in vain may be left
					c.want(t, r.store, false, "after the next start")
					r.wantSegments(0)
				})
			})
		}
	}
}

// A seq file that cannot be read keeps no receiver from its start.
func TestSeqIsLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		fs := waltest.New()
		var last uint64
		send := func(r *rig) {
			events := r.events(2, 10)
			if _, err := r.Append(t.Context(), events, nil, pipeline.Disk); err != nil {
				t.Fatal(err)
			}
			if events[0].Seq <= last {
				t.Errorf("seq %d after %d", events[0].Seq, last)
			}
			last = events[1].Seq
		}
		fs.Put("/wal/SEQ", []byte("1900000000000000")) // ahead of the clock
		r := start(t, options(), fs, newStore())
		send(r)
		r.mustStop()
		fs.Put("/wal/SEQ", []byte("19000\x00"))
		opts, reported := options(), ""
		opts.Failed = func(f pipeline.Failure) { reported += f.Code }
		for range 2 {
			r = start(t, opts, fs, r.store)
			r.next = last
			send(r)
			if s := r.Stats(); s.SetAside != 1 || r.Ready() != nil {
				t.Errorf("stats %+v, ready: %v; want one file set aside", s, r.Ready())
			}
			r.mustStop()
		}
		if reported != "damaged_segment" || last >= 1<<53 {
			t.Errorf("reported %q, seq %d", reported, last)
		}
	})
}

// Append allocates a few times a request, and not for each event.
func TestAppendAllocatesForNoEvent(t *testing.T) {
	opts := options()
	opts.Dir = t.TempDir()
	b := New(pipeline.Events, opts, takes{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err := b.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	for _, d := range []pipeline.Durability{pipeline.Memory, pipeline.Disk} {
		events := make([]pipeline.Event, 1000)
		for i := range events {
			events[i] = event(uint64(i), 100)
		}
		got := testing.AllocsPerRun(50, func() {
			if _, err := appendWait(ctx, b, events, nil, d); err != nil {
				t.Fatal(err)
			}
		})
		if got > 30 { // including the write's own, and its fsync's
			t.Errorf("durability %v: %.0f allocations for %d events, want 30 at most", d, got, len(events))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
