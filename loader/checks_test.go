package loader

import (
	"context"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

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

// A notification of a loaded object costs one look into the ledger: nothing is
// fetched, asked or written.
func TestLoadedIsLeftAlone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 25, noon, 1)
		l := w.loader(t, "a")
		runUntilSettled(t, l, w)
		before := w.ledger[key]
		calls := map[string]int{}
		w.fault = func(call string) (error, bool) { calls[call]++; return nil, false }
		w.notify(key)
		runUntilSettled(t, l, w)
		for call, n := range calls {
			if call != "ledger" && call != "receive" && call != "ack" || call != "receive" && n > 1 {
				t.Errorf("%d calls of %s for an object that is loaded", n, call)
			}
		}
		if after := w.ledger[key]; after.Version() != before.Version() || !after.Finished.Equal(before.Finished) || before.Finished.After(time.Now()) {
			t.Errorf("ledger: %+v, before %+v", after, before)
		}
	})
}

// A sweep enqueues whatever is not settled, by what the ledger says.
func TestSweepGoesByTheLedger(t *testing.T) {
	today := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	a := &audited{world: newWorld(), shelf: &shelf{objects: map[string]time.Time{}, states: map[string]pipeline.LoadState{}}}
	want := map[string]bool{}
	for i, state := range []pipeline.LoadState{pipeline.Loading, pipeline.Failed, pipeline.Dead, pipeline.Dropped, pipeline.Loaded, 99} {
		key := pipeline.Key{Prefix: "events/", Time: today.Add(time.Hour), Receiver: "r", Seq: uint64(i), Format: pipeline.Parquet}.String()
		a.shelf.objects[key] = today.Add(time.Hour)
		if state != 99 { // 99 is unknown to the ledger
			a.states[key] = state
		}
		want[key] = state == pipeline.Loading || state == pipeline.Failed || state == 99
	}
	got := map[string]bool{}
	swept, err := Sweep(t.Context(), pipeline.Events, Span{today, today.Add(24 * time.Hour)}, 0, a, a,
		func(_ context.Context, n pipeline.Notification) (bool, error) { got[n.Key] = true; return false, nil }, nil)
	if err != nil || swept.Enqueued != 3 || swept.Loaded != 1 || swept.Dead != 1 || swept.Dropped != 1 {
		t.Errorf("swept %+v, error %v", swept, err)
	}
	for key, wanted := range want {
		if got[key] != wanted {
			t.Errorf("%s: enqueued %v, want %v", key, got[key], wanted)
		}
	}
}
