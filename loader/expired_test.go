package loader

import (
	"context"
	"testing"
	"time"

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

// A re-ingest leaves objects whose rows have expired as they are.
func TestReingestLeavesExpired(t *testing.T) {
	loaded := pipeline.Load{Key: "k", State: pipeline.Loaded, Rows: 2, Received: pipeline.Millis(noon)}
	for _, c := range []struct {
		job     string
		expired time.Time
		present bool
		want    Action
	}{
		{"", pipeline.Millis(noon + 1), false, ActionExpired},
		{"job", pipeline.Millis(noon + 1), false, ActionExpired},
		{"", pipeline.Millis(noon), false, ActionAgain},
		{"", time.Time{}, false, ActionAgain},
		{"job", time.Time{}, false, ActionReplace},
		{"", pipeline.Millis(noon + 1), true, ActionSkip},
		{"job", pipeline.Millis(noon + 1), true, ActionReplace},
	} {
		r := &Reingest{Job: c.job, Expired: c.expired}
		got := r.Decide([]pipeline.Object{{Key: "k"}}, map[string]pipeline.Load{"k": loaded}, map[string]bool{"k": c.present})[0]
		if got.Action != c.want {
			t.Errorf("%+v: %s", c, got.Action)
		}
	}
	w := newWorld()
	w.ledger["k"] = loaded
	r := &Reingest{Loader: w.loader(t, "a")}
	if e, err := r.Do(context.Background(), Item{Object: pipeline.Object{Key: "k"}, Entry: loaded, Action: ActionExpired}); err != nil ||
		e.State != pipeline.Loaded || w.ledger["k"].State != pipeline.Loaded {
		t.Errorf("entry %+v, error %v", e, err)
	}
}
