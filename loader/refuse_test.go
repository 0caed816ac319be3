package loader

// All sleeps here are in bubbles (internal/testing/bubble): fake time, which takes none.

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// Rows that the table rejects are omitted, and the others are there once. Each rejected row is reported with the
// table's reason and in the form that clients send.
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
					if f.Stage != "loader" || f.Code != "refused_row" || f.ServerCode != 70 || f.Object != key ||
						!strings.Contains(string(f.Raw), `"name":"bad"`) ||
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

// A loader that omits rows is killed after each call, at every point, and tokens are forgotten at once. Good rows are
// there once, bad ones are reported.
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

// For an unknown code, the loader inserts an event without properties. If the table accepts it, the row is at fault. If
// not, the table is, and nothing counts against the object.
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

// A view behind the table throws: the rows are there once, and the error is reported.
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

// If the table does not fit, the object is given up as a whole. When the table is fixed and the object redriven, all
// rows are there.
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

// While the server is unreachable, no rows are tried, and nothing counts against the object.
func TestOutageWhileRefusing(t *testing.T) {
	for _, call := range []string{"trial", "present"} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld()
			w.bad = map[string]bool{"bad": true}
			key := w.putNamed(t, 15, noon, 1, func(i int) string { return map[bool]string{true: "bad", false: "n"}[i == 7] })
			times := 0
			w.fault = func(c string) (error, bool) {
				if c != call || times == 3 {
					return nil, false
				}
				times++
				return retry.As(retry.Outage, errors.New("away")), false
			}
			l := w.loader(t, "a")
			l.opts.Attempts = 1
			runUntilSettled(t, l, w)
			w.refusedCheck(t, key, 15, []int{7})
			if times != 3 {
				t.Errorf("%s failed %d times", call, times)
			}
		})
	}
}

// Without the right to create validation tables, one bad row must not stop the loader: the object fails as a whole.
func TestNoTrial(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		w.bad = map[string]bool{"n": true}
		key := w.put(t, 5, noon, 1)
		w.fault = func(call string) (error, bool) { return failing("try", retry.Outage)(call), false }
		l := w.loader(t, "a")
		l.opts.Attempts = 2
		runUntilSettled(t, l, w)
		if e := w.ledger[key]; e.State != pipeline.Dead || e.Code != "insert_refused" || e.Failures != 2 ||
			len(e.Refused) > 0 {
			t.Errorf("ledger %+v", e)
		}
	})
}

// If a table rejects a chunk but none of its rows, no rows are omitted.
func TestRefusedAsAWhole(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld()
		key := w.put(t, 5, noon, 1)
		w.fault = func(call string) (error, bool) {
			if call == "insert" {
				return retry.AsCode(retry.Permanent, 70, errors.New("refused")), false
			}
			return nil, false
		}
		_, err := w.loader(t, "a").load(t.Context(), pipeline.Notification{Key: key})
		if codeOf(err) != "insert_refused" || len(w.ledger[key].Refused) > 0 ||
			!strings.Contains(err.Error(), "none of them alone") {
			t.Errorf("error %v, ledger %+v", err, w.ledger[key])
		}
	})
}

// A rejected row is reported in the form that clients send.
func TestClientForm(t *testing.T) {
	id := pipeline.UUID{15: 7}
	for want, e := range map[string]pipeline.Event{
		`{"event_id":"00000000-0000-0000-0000-000000000007","name":"n","properties":{}}`: {ID: id, Name: []byte("n"),
			Timestamp: pipeline.NoTime, Properties: []byte("{}")},
		`{"event_id":"00000000-0000-0000-0000-000000000007","name":"a\"b","timestamp":5,"session_id":"s","user_id":"u","properties":{"a":1}}`: {ID: id,
			Name: []byte(`a"b`), Timestamp: 5, SessionID: []byte("s"), UserID: []byte("u"), Properties: []byte(`{"a":1}`)},
	} {
		if got := string(ClientForm(&e)); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
}
