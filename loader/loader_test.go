package loader

// All sleeps here are in bubbles (internal/testing/bubble): fake time, which takes none.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
)

func TestLoadsEachOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		for _, n := range []int{1, 9, 10, 11, 35, 20} {
			key := w.put(t, n, noon, 1)
			w.notify(key)
		}
		l := w.loader(t, "a")
		stop := start(t, l)
		time.Sleep(time.Minute)
		if err := stop(); err != nil {
			t.Error(err)
		}
		w.check(t)
		if n := w.open(); n != 0 {
			t.Errorf("%d deliveries are not settled", n)
		}
		if want := 1 + 1 + 1 + 2 + 4 + 2; w.inserts > 2*want {
			t.Errorf("%d inserts for %d chunks", w.inserts, want)
		}
		if s := l.Stats(); s.Objects < 6 || s.Error != "" {
			t.Errorf("stats %+v", s)
		}
	})
}

// Calls fail at a rate, before or after they took effect. Two loaders get the same deliveries, and tokens are forgotten
// at once. The table has each row once.
func TestOnceUnderFaults(t *testing.T) {
	for _, rate := range []float64{0.1, 0.5} {
		for _, window := range []int{0, 1} {
			t.Run(fmt.Sprintf("rate %v, window %d", rate, window), func(t *testing.T) {
				bubble.Test(t, func(t *testing.T) {
					seed := rand.Uint64()
					t.Logf("seed %d", seed)
					rnd := rand.New(rand.NewPCG(seed, 1))
					w := newWorld()
					w.window = window
					w.fault = func(call string) (error, bool) {
						if rnd.Float64() >= rate {
							return nil, false
						}
						class := retry.Outage
						if rnd.IntN(3) == 0 {
							class = retry.Unknown
						}
						return retry.As(class, errors.New("fault at "+call)), rnd.IntN(2) == 0
					}
					for i := range 12 {
						if w.times = nil; i%2 == 0 && rate < 0.5 { // more chunks, so more calls that must succeed
							w.times = late
						}
						w.put(t, 1+rnd.IntN(40), noon+rnd.Int64N(24*3600*1000), 1)
					}
					names := []string{"a"}
					if window == 0 { // without tokens, two concurrent inserts both count
						for _, d := range slices.Clone(w.queue) {
							w.queue = append(w.queue, &delivery{w: w, key: d.key})
						}
						names = append(names, "b")
					}
					var stops []func() error
					for _, name := range names {
						stops = append(stops, start(t, w.loader(t, name)))
					}
					for range 1000 {
						time.Sleep(10 * time.Minute)
						if w.open() == 0 {
							break
						}
					}
					for _, stop := range stops {
						stop()
					}
					if n := w.open(); n != 0 {
						t.Fatalf("%d deliveries are not settled", n)
					}
					w.check(t)
				})
			})
		}
	}
}

// A loader is killed after each call, at every point, and the next one continues.
func TestKilledAtEveryPoint(t *testing.T) {
	for point := range 60 {
		for _, takesEffect := range []bool{false, true} {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld()
				w.window, w.times = 1, late
				w.put(t, 35, noon, 1)
				w.killAt(t, point, takesEffect)
				w.check(t)
				if n := w.open(); n != 0 {
					t.Errorf("point %d: %d deliveries are not settled", point, n)
				}
			})
		}
	}
}

// Ledger and tokens are lost: the loader finds the rows in the table.
func TestLedgerLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.times = late
		for _, n := range []int{5, 35} {
			w.put(t, n, noon, 1)
		}
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		w.mu.Lock()
		clear(w.ledger)
		clear(w.tokens)
		for key := range w.objects {
			w.notify(key)
		}
		w.mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		w.check(t)
		if len(w.ledger) != 2 {
			t.Errorf("the ledger has %d entries, want 2", len(w.ledger))
		}
	})
}

// While the table is unreachable, nothing is received from the queue. Then all is loaded.
func TestOutageStopsReceiving(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		for range 20 {
			w.put(t, 5, noon, 1)
		}
		w.down = retry.As(retry.Outage, errors.New("connection refused"))
		l := w.loader(t, "a")
		stop := start(t, l)
		time.Sleep(time.Hour)
		w.mu.Lock()
		taken := 0
		for _, d := range w.queue {
			taken += d.attempt
		}
		w.mu.Unlock()
		if taken > 10 { // the workers' first ones, and at most one for each probe by a race
			t.Errorf("%d deliveries were taken in an hour's outage", taken)
		}
		if l.Stats().Error == "" {
			t.Error("the outage does not show in the stats")
		}
		w.mu.Lock()
		w.down = nil
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
	})
}

// If a server answers but rejects inserts, the interval of probes grows.
func TestOutageBacksOff(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(t, 5, noon, 1)
		w.fault = func(call string) (error, bool) {
			if call == "insert" {
				w.inserts++
				return retry.As(retry.Outage, errors.New("too many parts")), false
			}
			return nil, false
		}
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Hour)
		w.mu.Lock()
		if n := w.inserts; n < 20 || n > 200 { // a mean interval of 5 s would give 720
			t.Errorf("%d inserts tried in an hour", n)
		}
		w.fault = nil
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
	})
}

func TestDamagedObjectIsNotLoaded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		damaged := w.put(t, 5, noon, 1)
		good := w.put(t, 5, noon+1000, 1)
		w.objects[damaged] = append([]byte(nil), w.objects[damaged]...)
		w.objects[damaged][20] ^= 1
		w.notify("events/dt=2026-11-22/hr=12/gone.parquet")
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Hour)
		stop()
		if n := w.count(good, 0); n != 1 {
			t.Error("the good object is not loaded: the bad one blocks it")
		}
		if n := w.count(damaged, 0); n != 0 {
			t.Error("a row of the damaged object is there")
		}
		if n := w.open(); n != 1 {
			t.Errorf("%d deliveries are open, want 1: only the missing object may come", n)
		}
	})
}

// A drain waits for running loads, and interrupts them at its deadline.
func TestDrain(t *testing.T) {
	for _, tt := range []struct {
		wait time.Duration
		cut  bool
	}{{20 * time.Second, false}, {50 * time.Second, true}} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			w.put(t, 5, noon, 1)
			l := w.loader(t, "a")
			l.parts.Table = &slowTable{world: w, wait: tt.wait}
			stop := start(t, l)
			time.Sleep(time.Second)
			if err := stop(); (err != nil) != tt.cut {
				t.Errorf("a load of %s: %v", tt.wait, err)
			}
			if tt.cut != (w.open() == 1) {
				t.Errorf("a load of %s leaves %d deliveries", tt.wait, w.open())
			}
		})
	}
}
