package loader

import (
	"fmt"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// Days in any order: one block a day, each row once, also where each chunk is asked for.
func TestDaysInAnyOrder(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.window = 1
		w.put(t, 10, noon, 17*3600*1000*1000%day) // every row on another day, some on the same
		w.put(t, 40, noon, 13*3600*1000)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
		if n := w.open(); n != 0 {
			t.Errorf("%d deliveries are open", n)
		}
	})
}

// The days of a chunk are blocks of their own, each in the order of its rows.
func TestDays(t *testing.T) {
	w := newWorld()
	a := &attempt{Loader: w.loader(t, "a"), entry: pipeline.Load{Key: "k", Refused: []uint32{3}}}
	var events []pipeline.Event
	for i, d := range []int64{3, 3, 1, 3, 2, 1} {
		events = append(events, pipeline.Event{Row: uint32(i), ReceivedAt: d*day + int64(i)})
	}
	var chunks []*chunk
	var err error
	for _, part := range [][]pipeline.Event{events[:2], events[2:]} {
		if chunks, err = a.gather(t.Context(), chunks, part, nil); err != nil {
			t.Fatal(err)
		}
	}
	got := ""
	for _, c := range chunks {
		for _, e := range c.block.(*block).events {
			got += fmt.Sprint(e.Row)
		}
		got += fmt.Sprintf(" %d-%d %d-%d, ", c.first, c.end, c.received[0]%day, c.received[1]%day)
	}
	if want := "01 0-4 0-3, 25 2-6 2-5, 4 4-5 4-4, "; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An object that is overwritten while a loader is about to insert the old
// content: only the new content is there at the end.
func TestOverwrittenMeanwhile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.etag = "old"
		key := w.put(t, 25, noon, 1)
		slow := w.loader(t, "slow")
		slow.parts.Table = &slowTable{world: w, wait: time.Minute}
		stop := start(t, slow)
		time.Sleep(time.Second) // it is about to insert its first chunk
		w.mu.Lock()
		w.etag = "new"
		w.mu.Unlock()
		stopNew := start(t, w.loader(t, "new"))
		w.mu.Lock()
		w.notify(key)
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		stopNew()
		w.check(t)
		for k := range w.rows {
			if g := w.entry(key).Generation; k.generation != g || g != 1 {
				t.Fatalf("row %d of generation %d, the ledger has %d, want 1", k.row, k.generation, g)
			}
		}
	})
}

// An object over midnight: no block goes into two partitions.
func TestCutsAtMidnight(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(t, 25, noon+12*3600*1000-7, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		stop()
		w.check(t)
	})
}

// Rows deleted by hand while the table still knows their tokens: the ledger
// does not say loaded before they are there again.
func TestSwallowedInsertIsNotLoaded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		w.mu.Lock()
		clear(w.ledger)
		clear(w.rows)
		w.notify(key)
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		w.mu.Lock()
		if w.ledger[key].State == pipeline.Loaded {
			t.Error("the ledger says loaded, and no row is there")
		}
		clear(w.tokens) // the window has passed
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
		if w.ledger[key].State != pipeline.Loaded {
			t.Error("it is not loaded after the window")
		}
	})
}

// An object that holds more or fewer rows than its metadata says is not loaded,
// and not called loaded.
func TestRowCount(t *testing.T) {
	for _, rows := range []int64{0, 24, 26, 1 << 40} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			key := w.put(t, 25, noon, 1)
			meta := w.metas[key]
			meta.Rows = rows
			w.metas[key] = meta
			l := w.loader(t, "a")
			l.opts.Attempts = 2
			runUntilSettled(t, l, w)
			if e := w.ledger[key]; e.State != pipeline.Dead || e.Code != "row_count" {
				t.Errorf("25 rows, and metadata of %d: %s %s", rows, e.State, e.Code)
			}
		})
	}
}

// Rows that the table's TTL deletes at once are no failure.
func TestExpiredRowsAreLoaded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.expired = pipeline.Millis(noon + 1000)
		old := w.put(t, 25, noon, 1)
		mixed := w.put(t, 25, noon+990, 1)
		runUntilSettled(t, w.loader(t, "a"), w)
		for _, key := range []string{old, mixed} {
			if e := w.ledger[key]; e.State != pipeline.Loaded || e.Failures != 0 || e.Rows != 25 {
				t.Errorf("ledger: %+v", e)
			}
		}
		if len(w.rows) != 15 {
			t.Errorf("%d rows, want those 15 that are not expired", len(w.rows))
		}
	})
}

// Rows that are gone and not expired are still a failure.
func TestSwallowedRowsAreNoExpiry(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		w.expired = pipeline.Millis(noon + 5)
		w.fault = func(call string) (error, bool) {
			if call == "expired" {
				w.expired = pipeline.Millis(noon + 4) // of the last row
			}
			return nil, false
		}
		_, err := w.loader(t, "a").load(t.Context(), pipeline.Notification{Key: key})
		if codeOf(err) != "rows_swallowed" {
			t.Errorf("error %v, want rows_swallowed", err)
		}
	})
}
