package audit

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// A sweep enqueues whatever is not settled, by what the ledger says.
func TestSweepGoesByTheLedger(t *testing.T) {
	today := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	const unknown = pipeline.LoadState(99)
	w := newWorld()
	want := map[string]bool{}
	for i, state := range []pipeline.LoadState{pipeline.Loading, pipeline.Failed, pipeline.Dead, pipeline.Dropped,
		pipeline.Loaded, unknown} {
		key := pipeline.Key{Prefix: "events/", Time: today.Add(time.Hour), Receiver: "r", Seq: uint64(i),
			Format: pipeline.Parquet}.String()
		w.objects[key] = today.Add(time.Hour)
		if state != unknown {
			w.states[key] = state
		}
		if state == pipeline.Loading || state == pipeline.Failed || state == unknown {
			want[key] = true
		}
	}
	got := map[string]bool{}
	progress := 0
	swept, err := Sweep(t.Context(), SweepOptions{
		Scope: InSpan(pipeline.Events, Span{today, today.Add(24 * time.Hour)}), Bucket: w, Ledger: w,
		Enqueue: func(_ context.Context, n pipeline.Notification) (bool, error) {
			got[n.Key] = true
			return len(got) == 3, nil
		},
		Progress: func(Swept) { progress++ },
	})
	if err != nil || progress != 1 {
		t.Errorf("error %v, progress after %d pages, want 1", err, progress)
	}
	if want := (Swept{Objects: 6, Loaded: 1, Enqueued: 2, Told: 1, Dead: 1, Dropped: 1}); swept != want {
		t.Errorf("swept\n got %+v\nwant %+v", swept, want)
	}
	if !maps.Equal(got, want) {
		t.Errorf("enqueued %v, want %v", got, want)
	}
}

// What was stored within the grace is only counted.
func TestSweepLeavesYoungObjects(t *testing.T) {
	w := newWorld()
	for i, age := range []time.Duration{0, time.Minute, time.Hour} {
		key := pipeline.Key{Prefix: "events/", Time: time.Now(), Receiver: "r", Seq: uint64(i),
			Format: pipeline.Parquet}.String()
		w.objects[key] = time.Now().Add(-age)
	}
	swept, err := Sweep(t.Context(),
		SweepOptions{Scope: All(pipeline.Events), Bucket: w, Ledger: w, Grace: 10 * time.Minute,
			Enqueue: func(context.Context, pipeline.Notification) (bool, error) { return false, nil }})
	if want := (Swept{Objects: 3, Young: 2, Enqueued: 1}); err != nil || swept != want {
		t.Errorf("swept %+v, %v, want %+v", swept, err, want)
	}
}

// A sweep that cannot go on says why, and how far it came.
func TestSweepFails(t *testing.T) {
	w := newWorld()
	for i := range 3 * worldPage {
		w.objects[pipeline.Key{Prefix: "events/", Time: time.Now(), Receiver: "r", Seq: uint64(i),
			Format: pipeline.Parquet}.String()] = time.Now()
	}
	var failed error
	enqueue := func(context.Context, pipeline.Notification) (bool, error) { return false, failed }
	sweep := func() (Swept, error) {
		return Sweep(t.Context(), SweepOptions{Scope: All(pipeline.Events), Bucket: w, Ledger: w, Enqueue: enqueue})
	}
	for _, c := range []struct {
		name    string
		prepare func()
		objects int
		err     string
	}{
		{"the store goes away", func() { w.fail = errFailing("list") }, worldPage,
			"sweep: list objects of events: list fails"},
		{"the ledger is away", func() { w.failing = "ledger" }, 0, "sweep: list objects of events: ledger fails"},
		{"the queue is away", func() { w.failing, failed = "", errFailing("queue") }, 1,
			"sweep: list objects of events: queue fails"},
	} {
		c.prepare()
		if swept, err := sweep(); err == nil || err.Error() != c.err || swept.Objects != c.objects {
			t.Errorf("%s: %d objects, error %v, want %d, %s", c.name, swept.Objects, err, c.objects, c.err)
		}
	}
}
