package loader

// All sleeps here are in bubbles (internal/testing/bubble): fake time, which takes none.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/loader/audit"
)

// Rows that the table refuses are left out, the others are there once, and each
// refused one is reported with the table's reason and as a client would send it.
func TestRefusedRows(t *testing.T) {
	for _, rows := range [][]int{{0}, {9}, {10}, {34}, {3, 4, 5}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {0, 5, 11, 12, 29, 34}} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld()
				w.bad = map[string]bool{"bad": true}
				key := w.putNamed(t, 35, noon, 1, func(i int) string {
					if slices.Contains(rows, i) {
						return "bad"
					}
					return "n"
				})
				stop := start(t, w.loader(t, "a"))
				time.Sleep(time.Minute)
				stop()
				w.refusedCheck(t, key, 35, rows)
				if w.open() != 0 || w.queue[0].attempt != 1 {
					t.Errorf("%d deliveries open, %d attempts: want all in the first delivery", w.open(), w.queue[0].attempt)
				}
				var reported []int
				for _, f := range w.kept {
					reported = append(reported, int(f.Row))
					if f.Stage != "loader" || f.Code != "refused_row" || f.ServerCode != 70 || f.Object != key || !strings.Contains(string(f.Raw), `"name":"bad"`) ||
						!strings.Contains(string(f.Raw), `"properties":{"a":1}`) || f.ID == (pipeline.UUID{}) {
						t.Errorf("reported %+v", f)
					}
				}
				if !slices.Equal(reported, rows) {
					t.Errorf("reported rows %v, want %v", reported, rows)
				}
			})
		})
	}
}

func (w *world) entry(key string) pipeline.Load {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ledger[key]
}

func (w *world) refusedCheck(t *testing.T, key string, n int, rows []int) {
	t.Helper()
	for i := range n {
		want := 1
		if slices.Contains(rows, i) {
			want = 0
		}
		if got := w.count(key, i); got != want {
			t.Errorf("row %d is there %d times, want %d", i, got, want)
		}
	}
	e := w.entry(key)
	if e.State != pipeline.Loaded || int(e.Rows) != n-len(rows) || len(e.Refused) != len(rows) {
		t.Errorf("ledger: %s, %d rows, refused %v, want loaded, %d, %v", e.State, e.Rows, e.Refused, n-len(rows), rows)
	}
}

// A loader that refuses rows, killed after each call, at every point, with the
// tokens forgotten at once: good rows are there once, bad ones reported.
func TestRefusedRowsKilledAtEveryPoint(t *testing.T) {
	rows := []int{4, 12, 13}
	for point := range 40 {
		for _, late := range []bool{false, true} {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld()
				w.window = 1
				w.bad = map[string]bool{"bad": true}
				key := w.putNamed(t, 25, noon, 1, func(i int) string {
					if slices.Contains(rows, i) {
						return "bad"
					}
					return "n"
				})
				w.killAt(t, point, late)
				w.refusedCheck(t, key, 25, rows)
				reported := map[int64]pipeline.UUID{}
				for _, f := range w.kept {
					if f.Code != "refused_row" {
						continue
					}
					if id, ok := reported[f.Row]; ok && id != f.ID {
						t.Errorf("row %d is reported under two ids", f.Row)
					}
					reported[f.Row] = f.ID
				}
				if len(reported) != len(rows) {
					t.Errorf("point %d: reported %d rows, want %d", point, len(reported), len(rows))
				}
			})
		}
	}
}

// A code that nobody knows: if an event without properties goes in, the row is
// at fault; if not, the table is, and nothing counts against the object.
func TestUnknownCode(t *testing.T) {
	for _, broken := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			w.code, w.bad, w.broken = unknownClass, map[string]bool{"bad": true}, broken
			key := w.putNamed(t, 15, noon, 1, func(i int) string {
				if i == 7 {
					return "bad"
				}
				return "n"
			})
			l := w.loader(t, "a")
			l.opts.Attempts = 2
			stop := start(t, l)
			time.Sleep(time.Hour)
			if broken {
				w.mu.Lock()
				if e := w.ledger[key]; e.Failures != 0 || len(w.letters) != 0 || len(w.rows) != 0 {
					t.Errorf("the table is at fault: %d failures, %d letters, %d rows", e.Failures, len(w.letters), len(w.rows))
				}
				w.broken = false
				w.mu.Unlock()
				time.Sleep(10 * time.Minute)
			}
			stop()
			w.refusedCheck(t, key, 15, []int{7})
		})
	}
}

// A view that throws behind the table: the rows are there once, and it is told.
func TestViewThrows(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.view = true
		key := w.put(t, 25, noon, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		stop()
		w.check(t)
		told := 0
		for _, f := range w.kept {
			if f.Code == "view_failed" && f.Object == key && f.ServerCode == 70 {
				told++
			}
		}
		if w.entry(key).State != pipeline.Loaded || told != 3 {
			t.Errorf("%s, told %d times, want loaded, once for each of 3 chunks", w.entry(key).State, told)
		}
	})
}

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

const unknownClass = retry.Class(9) // stands for Unknown, since 0 stands for permanent

// A table that does not fit gives the object up as a whole; when it is mended
// and the letter redriven, all rows are there.
func TestTooManyRefusedRows(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.bad = map[string]bool{"n": true}
		key := w.put(t, maxRefused+50, noon, 1)
		l := w.loader(t, "a")
		l.opts.ChunkRows, l.opts.Attempts = 10000, 3
		stop := start(t, l)
		time.Sleep(time.Hour)
		if e := w.entry(key); e.State != pipeline.Dead || e.Code != "refused_rows" || len(w.rows) != 0 {
			t.Errorf("ledger: %s %s, %d rows in the table", e.State, e.Code, len(w.rows))
		}
		if len(w.letters) != 1 || w.open() != 0 {
			t.Errorf("%d letters, %d deliveries open", len(w.letters), w.open())
		}
		w.mu.Lock()
		w.bad = nil
		e := w.ledger[key]
		w.mu.Unlock()
		e.State, e.Failures = pipeline.Failed, 0
		e.Attempts++
		w.SaveLoad(t.Context(), e)
		w.mu.Lock()
		w.notify(key)
		w.mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		w.check(t)
	})
}

// Failures count only where they are the object's own, wait longer and longer,
// and end in one dead letter that is confirmed before the delivery is settled.
func TestDeadLetter(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key, good := w.put(t, 5, noon, 1), w.put(t, 5, noon+1, 1)
		w.objects[key][20] ^= 1
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
		if len(w.letters) != 1 || w.open() != 0 {
			t.Fatalf("%d letters, %d deliveries open", len(w.letters), w.open())
		}
		d := w.letters[0]
		if d.Key != key || d.Failures != 5 || !strings.Contains(d.Reason, "damaged") || !d.First.Before(d.Last) || d.Token != e.Token() {
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
		// A sweep leaves it alone, and a notification that comes again as well.
		w.notify(key)
		stop = start(t, l)
		time.Sleep(time.Minute)
		stop()
		if e := w.entry(key); e.Failures != 5 || w.open() != 0 {
			t.Errorf("after another notification: %d failures, %d open", e.Failures, w.open())
		}
	})
}

// An outage counts nothing, however long.
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

// A re-ingest under random faults, cut off and begun again, with loaders and
// redeliveries beside it: each row is there once, of the newest generation.
func TestReplaceUnderFaults(t *testing.T) {
	for seed := range uint64(60) {
		bubble.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			w := newWorld()
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
					w.notify(key) // as the sweep does
				}
			}
			w.mu.Unlock()
			time.Sleep(time.Hour)
			stop()
			for k, n := range w.rows {
				if g := w.entry(k.object).Generation; k.generation != g || n != 1 {
					t.Fatalf("seed %d: row %d of generation %d is there %d times, the ledger has %+v", seed, k.row, k.generation, n, w.entry(k.object))
				}
			}
			w.check(t)
		})
	}
}

// Two at the same object: who is late and adds rows of an old generation takes them away again.
func TestReplacedMeanwhile(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 25, noon, 1)
		slow := w.loader(t, "slow")
		slow.parts.Table = &slowTable{world: w, wait: time.Minute}
		stop := start(t, slow)
		time.Sleep(time.Second) // it is about to insert its first chunk
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

// The table was dropped and made anew, the ledger was not: all comes back.
func TestReingestAfterTableIsLost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 25, noon, 1)
		stop := start(t, w.loader(t, "a"))
		time.Sleep(time.Minute)
		stop()
		clear(w.rows) // the tokens are still known
		operator, plan := w.loader(t, "operator"), audit.Plan{}
		item := plan.Decide([]pipeline.Object{{Key: key, ETag: "e"}}, map[string]pipeline.Load{key: w.entry(key)}, nil)[0]
		if _, err := operator.Reingest(t.Context(), item, plan.Job); err != nil || item.Action != audit.ActionAgain {
			t.Fatal(item.Action, err)
		}
		w.check(t)
	})
}
