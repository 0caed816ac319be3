package loader

import (
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
