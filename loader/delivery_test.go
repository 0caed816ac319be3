package loader

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/loader/audit"
)

// A notification of a loaded object costs one read of the ledger: no fetch, no query, no write.
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
		if after := w.ledger[key]; after.Version() != before.Version() || !after.Finished.Equal(before.Finished) ||
			before.Finished.After(time.Now()) {
			t.Errorf("ledger: %+v, before %+v", after, before)
		}
	})
}

// Only the object's own failures count. Waits between attempts grow. At the end there is one dead letter, confirmed
// before the delivery is settled.
func TestDeadLetter(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key, good := w.put(t, 5, noon, 1), w.put(t, 5, noon+1, 1)
		var gets byte
		w.received = func(of string, b []byte) []byte { // each time damaged in another way, so a retry might help
			if of == key {
				gets++
				b[20] ^= gets
			}
			return b
		}
		letters := 0
		w.fault = func(call string) (error, bool) {
			if call == "letter" {
				if letters++; letters < 4 {
					return retry.As(retry.Outage, errors.New("the queue is away")), false
				}
			}
			return nil, false
		}
		l := w.loader(t, "a")
		l.opts.Attempts = 5
		stop := start(t, l)
		time.Sleep(2 * time.Hour)
		stop()
		if n := w.count(good, 0); n != 1 {
			t.Errorf("its neighbour is there %d times", n)
		}
		e := w.entry(key)
		if e.State != pipeline.Dead || e.Failures != 5 || e.Code != "object_damaged" {
			t.Errorf("ledger: %s, %d failures, %s", e.State, e.Failures, e.Code)
		}
		if want := noon + 4; e.Received.UnixMilli() != want { // an alert compares it with the newest accepted event
			t.Errorf("ledger: received at %d, want %d", e.Received.UnixMilli(), want)
		}
		if len(w.letters) != 1 || w.open() != 0 {
			t.Fatalf("%d letters, %d deliveries open", len(w.letters), w.open())
		}
		d := w.letters[0]
		if d.Key != key || d.Failures != 5 || !strings.Contains(d.Reason, "damaged") || !d.First.Before(d.Last) ||
			d.Token != e.Token() {
			t.Errorf("letter %+v", d)
		}
		attempts := 0
		for _, f := range w.kept {
			if f.Object == key && f.Class == "permanent" {
				attempts++
			}
		}
		if attempts != 5 {
			t.Errorf("%d failures reported, want 5", attempts)
		}
		// Neither a sweep nor another notification retries it.
		w.notify(key)
		stop = start(t, l)
		time.Sleep(time.Minute)
		stop()
		if e := w.entry(key); e.Failures != 5 || w.open() != 0 {
			t.Errorf("after another notification: %d failures, %d open", e.Failures, w.open())
		}
	})
}

// An outage counts nothing, however long it is.
func TestOutageIsNoFailure(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		w.down = retry.As(retry.Outage, errors.New("away"))
		l := w.loader(t, "a")
		l.opts.Attempts = 2
		stop := start(t, l)
		time.Sleep(24 * time.Hour)
		w.mu.Lock()
		w.down = nil
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		stop()
		w.check(t)
		if e := w.entry(key); e.Failures != 0 || len(w.letters) != 0 {
			t.Errorf("%d failures, %d letters", e.Failures, len(w.letters))
		}
	})
}

// During a long load, the delivery is extended.
func TestExtends(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.put(t, 5, noon, 1)
		slow := &slowTable{world: w, wait: 95 * time.Second}
		l := w.loader(t, "a")
		l.parts.Table = slow
		stop := start(t, l)
		time.Sleep(3 * time.Minute)
		stop()
		if got := w.queue[0].extended; got != 9 {
			t.Errorf("extended %d times in 95 s, want 9", got)
		}
		w.check(t)
	})
}

// A notification without an object to load is settled, and counted with a reason.
func TestIgnoredNotifications(t *testing.T) {
	for _, c := range []struct {
		name   string
		d      delivery
		reason string
	}{
		{"a store's test message", delivery{}, "test"},
		{"a message that nobody can read", delivery{unreadable: errors.New("no JSON")}, "unparsable"},
		{"another pipeline's object", delivery{key: "errors/dt=2026-11-22/hr=12/x.parquet"}, "foreign"},
		{"a temporary file", delivery{key: "events/_temporary/x.parquet"}, "not_data"},
	} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			c.d.w = w
			w.queue = append(w.queue, &c.d)
			runUntilSettled(t, w.loader(t, "a"), w)
			if n := w.counted(t, "ignored_total", c.reason); n != 1 || len(w.ledger) > 0 {
				t.Errorf("%s: %v are counted as %s, want 1; ledger %v", c.name, n, c.reason, w.ledger)
			}
		})
	}
}

// Dropped objects stay dropped, and dead ones stay dead.
func TestGivenUpStaysGivenUp(t *testing.T) {
	for state, want := range map[pipeline.LoadState]string{pipeline.Dropped: "dropped", pipeline.Dead: "dead"} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			key := w.put(t, 5, noon, 1)
			w.ledger[key] = pipeline.Load{Key: key, State: state, Pipeline: "events"}
			runUntilSettled(t, w.loader(t, "a"), w)
			if n := w.counted(t, "objects_total", want); n != 1 || len(w.rows) > 0 || w.ledger[key].State != state {
				t.Errorf("%s: counted %v times, %d rows, ledger %+v", want, n, len(w.rows), w.ledger[key])
			}
			if letters := len(w.letters); letters != map[string]int{"dead": 1}[want] {
				t.Errorf("%s: %d letters", want, letters)
			}
		})
	}
}

// A notification of a loaded object only deletes rows that a late loader added to an older generation.
func TestLoadedIsTidied(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		w.queue[0].etag = "other" // it was overwritten: only an operator decides about that
		w.ledger[key] = pipeline.Load{Key: key, ETag: "e", State: pipeline.Loaded, Pipeline: "events", Generation: 2}
		for g := range uint32(3) {
			w.rows[rowKey{object: key, generation: g}] = 1
		}
		runUntilSettled(t, w.loader(t, "a"), w)
		if n := w.counted(t, "objects_total", "already"); n != 1 || len(w.rows) != 1 || w.rows[rowKey{object: key, generation: 2}] != 1 {
			t.Errorf("counted %v times, rows %v", n, w.rows)
		}
	})
}

// An object was damaged, replaced by a good one under its key, and loaded. The late notification of the damaged content
// does not prove an overwrite, and counts nothing against the object.
func TestLateNotificationOfReplacedContent(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		for _, loaded := range []bool{false, true} {
			w := newWorld()
			key := w.put(t, 5, noon, 1)
			w.queue[0].etag = "of the damaged content"
			if loaded {
				object, _, err := w.Get(t.Context(), key)
				if err != nil {
					t.Fatal(err)
				}
				w.ledger[key] = pipeline.Load{Key: key, ETag: object.ETag, State: pipeline.Loaded, Pipeline: "events"}
			}
			var log bytes.Buffer
			l := w.loader(t, "a")
			l.log = slog.New(slog.NewTextHandler(&log, nil))
			runUntilSettled(t, l, w)
			if e := w.ledger[key]; e.State != pipeline.Loaded || e.Failures != 0 || strings.Contains(log.String(), "overwritten") {
				t.Errorf("loaded before %v: %+v\n%s", loaded, e, &log)
			}
		}
	})
}

// Without dead letters in the queue and without an errors pipeline, a loader still gives objects up; the ledger has
// them.
func TestWithoutLettersAndReports(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.bad = map[string]bool{"bad": true}
		damaged := w.put(t, 5, noon, 1)
		w.objects[damaged][20] ^= 1
		refused := w.putNamed(t, 5, noon+1, 1, func(i int) string { return []string{"n", "bad"}[i%2] })
		l := w.loader(t, "a")
		l.opts.Attempts, l.parts.Letters, l.parts.Report = 2, nil, nil
		runUntilSettled(t, l, w)
		if e := w.ledger[damaged]; e.State != pipeline.Dead || e.Code != "object_damaged" || len(w.letters)+len(w.kept) > 0 {
			t.Errorf("ledger %+v; %d letters, %d reports", e, len(w.letters), len(w.kept))
		}
		w.refusedCheck(t, refused, 5, []int{1, 3})
	})
}

// Freshness is the time since the first event of an object was received. Only its first load counts.
func TestFreshness(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 25, time.Now().Add(-90*time.Second).UnixMilli(), 1000)
		l := w.loader(t, "a")
		stop := start(t, l)
		time.Sleep(time.Minute)
		if got := w.counted(t, "freshness_seconds", ""); got < 90 || got > 92 {
			t.Errorf("after the load: %g s, want 90", got)
		}
		again := audit.Item{Object: pipeline.Object{Key: key}, Action: audit.ActionReplace}
		if e, err := l.Reingest(t.Context(), again, "j"); err != nil || e.Generation != 1 {
			t.Fatalf("generation %d, %v", e.Generation, err)
		}
		stop()
		if got := w.counted(t, "freshness_seconds", ""); got > 92 {
			t.Errorf("after another load: %g s in total, want 90", got)
		}
	})
}
