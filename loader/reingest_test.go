package loader

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/loader/audit"
)

// A re-ingest under random faults is interrupted and restarted, with loaders and redeliveries running. Each row is
// there once, in the newest generation.
func TestReplaceUnderFaults(t *testing.T) {
	for seed := range uint64(60) {
		bubble.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			w := newWorld()
			w.times = late
			var keys []string
			for range 6 {
				keys = append(keys, w.put(t, 1+rnd.IntN(35), noon, 1))
			}
			l := w.loader(t, "a")
			stop := start(t, l)
			time.Sleep(time.Minute)
			w.mu.Lock()
			w.fault = func(call string) (error, bool) {
				if rnd.Float64() < 0.15 {
					return retry.As(retry.Outage, errors.New("fault at "+call)), rnd.IntN(2) == 0
				}
				return nil, false
			}
			w.mu.Unlock()
			for round := range 40 {
				operator, plan := w.loader(t, "operator"), audit.Plan{Job: "j"}
				done := true
				for _, key := range keys {
					w.mu.Lock()
					if rnd.IntN(3) == 0 {
						w.notify(key)
					}
					w.mu.Unlock()
					entry := func() map[string]pipeline.Load {
						w.mu.Lock()
						defer w.mu.Unlock()
						return map[string]pipeline.Load{key: w.ledger[key]}
					}()
					item := plan.Decide([]pipeline.Object{{Key: key, ETag: "e"}}, entry, map[string]bool{key: true})[0]
					if item.Action == audit.ActionDone {
						continue
					}
					if _, err := operator.Reingest(t.Context(), item, plan.Job); err != nil {
						done = false
						break // as if killed
					}
				}
				if done && round > 3 {
					break
				}
			}
			w.mu.Lock()
			w.fault = nil
			for _, key := range keys {
				if w.ledger[key].State != pipeline.Loaded {
					w.notify(key) // like a sweep
				}
			}
			w.mu.Unlock()
			time.Sleep(time.Hour)
			stop()
			for k, n := range w.rows {
				if g := w.entry(k.object).Generation; k.generation != g || n != 1 {
					t.Fatalf("seed %d: row %d of generation %d is there %d times, the ledger has %+v", seed, k.row, k.generation, n,
						w.entry(k.object))
				}
			}
			w.check(t)
		})
	}
}

// Two loaders work on one object: the late one, which adds rows of an old generation, deletes them again.
func TestReplacedMeanwhile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 25, noon, 1)
		slow := w.loader(t, "slow")
		slow.parts.Table = &slowTable{world: w, wait: time.Minute}
		stop := start(t, slow)
		time.Sleep(time.Second) // the loader is about to insert its first chunk
		operator, plan := w.loader(t, "operator"), audit.Plan{Job: "j"}
		item := plan.Decide([]pipeline.Object{{Key: key, ETag: "e"}}, map[string]pipeline.Load{key: w.entry(key)}, nil)[0]
		if item.Action != audit.ActionReplace {
			t.Fatalf("action %s", item.Action)
		}
		if _, err := operator.Reingest(t.Context(), item, plan.Job); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
		if g := w.entry(key).Generation; g != 1 {
			t.Errorf("generation %d", g)
		}
	})
}

// The table was dropped and recreated, the ledger was kept: all rows return.
func TestReingestAfterTableIsLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 25, noon, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		stop()
		clear(w.rows) // the table still knows the tokens
		operator, plan := w.loader(t, "operator"), audit.Plan{}
		item := plan.Decide([]pipeline.Object{{Key: key, ETag: "e"}}, map[string]pipeline.Load{key: w.entry(key)}, nil)[0]
		if _, err := operator.Reingest(t.Context(), item, plan.Job); err != nil || item.Action != audit.ActionAgain {
			t.Fatal(item.Action, err)
		}
		w.check(t)
	})
}

// An operator's request in each state of the ledger: the object's next state and generation.
func TestReingest(t *testing.T) {
	for _, c := range []struct {
		name   string
		action audit.Action
		entry  *pipeline.Load // nil: no entry
		rows   bool           // rows of generation 0 exist
		want   string         // state, and generation of all rows
	}{
		{"unknown", audit.ActionLoad, nil, false, "loaded 0"},
		{"unknown, and its rows are there", audit.ActionLoad, nil, true, "loaded 0"},
		{"dead", audit.ActionLoad, &pipeline.Load{State: pipeline.Dead, Attempts: 3, Failures: 3}, false, "loaded 0"},
		{"dropped", audit.ActionLoad, &pipeline.Load{State: pipeline.Dropped, Attempts: 3}, false, "loaded 0"},
		{"loaded meanwhile", audit.ActionLoad, &pipeline.Load{State: pipeline.Loaded, Generation: 4}, false, "loaded 4"},
		{"replace", audit.ActionReplace, &pipeline.Load{State: pipeline.Loaded, Attempts: 1}, true, "loaded 1"},
		{"replace, and the ledger was lost", audit.ActionReplace, nil, true, "loaded 1"},
		{"replace what this job has begun", audit.ActionReplace,
			&pipeline.Load{State: pipeline.Failed, Attempts: 2, Generation: 1, Job: "j", Failures: 2}, true, "loaded 1"},
		{"replace what this job has replaced meanwhile", audit.ActionReplace,
			&pipeline.Load{State: pipeline.Loaded, Generation: 3, Job: "j"}, false, "loaded 3"},
		{"the table was lost", audit.ActionAgain, &pipeline.Load{State: pipeline.Loaded, Attempts: 1}, false, "loaded 1"},
		{"skip", audit.ActionSkip, &pipeline.Load{State: pipeline.Loaded}, false, "loaded 0"},
		{"expired", audit.ActionExpired, &pipeline.Load{State: pipeline.Loaded}, false, "loaded 0"},
	} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			key := w.put(t, 5, noon, 1)
			item := audit.Item{Object: pipeline.Object{Key: key, ETag: "e"}, Action: c.action}
			if c.entry != nil {
				item.Entry = *c.entry
				item.Entry.Key, item.Entry.Pipeline = key, "events"
				w.ledger[key] = item.Entry
			}
			loads := c.action != audit.ActionSkip && c.action != audit.ActionExpired && !strings.Contains(c.name, "meanwhile")
			for row := range uint32(5) {
				if c.rows {
					w.rows[rowKey{object: key, row: row, partition: pipeline.Partition(noon)}] = 1
				}
			}
			e, err := w.loader(t, "operator").Reingest(t.Context(), item, "j")
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if got := fmt.Sprint(e.State, " ", e.Generation); got != c.want || w.ledger[key].State != e.State {
				t.Errorf("%s: %s, ledger %+v, want %s", c.name, got, w.ledger[key], c.want)
			}
			for k := range w.rows {
				if k.generation != e.Generation {
					t.Errorf("%s: row %+v of another generation than %d", c.name, k, e.Generation)
				}
			}
			if loads && (len(w.rows) != 5 || e.Failures != 0 || e.ETag != "e") {
				t.Errorf("%s: %d rows, entry %+v", c.name, len(w.rows), e)
			}
		})
	}
}

// A failure by the object's own fault counts, an outage does not. An operator sees both errors.
func TestReingestFails(t *testing.T) {
	for _, c := range []struct {
		name     string
		attempts int
		fault    func(call string) error
		want     string
	}{
		{"damaged", 5, nil, "dead 1"},
		{"missing", 5, failing("get", retry.Permanent), "failed 1"},
		{"missing, for the last time", 1, failing("get", retry.Permanent), "dead 1"},
		{"the store is away", 5, failing("get", retry.Outage), "loading 0"},
		{"the ledger is away", 5, failing("ledger", retry.Outage), "loading 0"},
		{"the failure cannot be recorded", 5, failing("save", retry.Outage), "loading 0"},
	} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			key := w.put(t, 5, noon, 1)
			w.objects[key][20] ^= 1
			if c.fault != nil {
				w.fault = func(call string) (error, bool) { return c.fault(call), false }
			}
			l := w.loader(t, "operator")
			l.opts.Attempts = c.attempts
			_, err := l.Reingest(t.Context(), audit.Item{Object: pipeline.Object{Key: key, ETag: "e"}, Action: audit.ActionLoad},
				"")
			if e := w.ledger[key]; err == nil || fmt.Sprint(e.State, " ", e.Failures) != c.want {
				t.Errorf("%s: error %v, ledger %+v, want %s", c.name, err, e, c.want)
			}
		})
	}
}
