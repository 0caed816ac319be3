package loader

import (
	"testing"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

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
