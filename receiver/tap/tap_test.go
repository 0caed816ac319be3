package tap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/internal/traffic"
)

func event(project, name, user, session string) pipeline.Event {
	return pipeline.Event{Project: []byte(project), Name: []byte(name), UserID: []byte(user), SessionID: []byte(session),
		Properties: []byte(`{"a":1}`)}
}

// read returns the names, or codes, of the events that wait.
func read(w *Watcher) (all []string) {
	for _, e := range w.Take(nil) {
		all = append(all, e.Name+e.Code)
	}
	return all
}

// A watcher sees what its filter matches, and only after it is stored.
func TestFilter(t *testing.T) {
	events := []pipeline.Event{event("game", "start", "u1", "s1"), event("game", "end", "u2", "s2"),
		event("shop", "buy", "u1", "s3")}
	for name, tt := range map[string]struct {
		filter Filter
		want   []string
	}{
		"all":      {Filter{}, []string{"start", "end", "buy", "bad"}},
		"project":  {Filter{Project: "shop"}, []string{"buy"}},
		"name":     {Filter{Name: "end"}, []string{"end"}},
		"user":     {Filter{User: "u1"}, []string{"start", "buy", "bad"}},
		"session":  {Filter{Session: "s2"}, []string{"end"}},
		"several":  {Filter{User: "u1", Project: "game"}, []string{"start", "bad"}},
		"accepted": {Filter{NoRejected: true}, []string{"start", "end", "buy"}},
		"rejected": {Filter{NoAccepted: true}, []string{"bad"}},
	} {
		tap := &Tap{}
		w, err := tap.Watch(tt.filter)
		if err != nil {
			t.Fatal(err)
		}
		b := tap.Copy(Event{RequestID: "r"}, events)
		if early := read(w); early != nil {
			t.Errorf("%s: saw %q before they were stored", name, early)
		}
		b.Show("events/o")
		tap.Reject(Event{Project: "game", Code: "bad"}, []byte(`{"user_id":"u1","x":`))
		if diff := cmp.Diff(tt.want, read(w)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		w.Close()
		if tap.Watched() || tap.Copy(Event{RequestID: "r"}, events) != nil {
			t.Errorf("%s: somebody looks after the end", name)
		}
	}
}

// Missed events are counted: those beyond the watcher's rate, and those while it does not read.
func TestMissed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		tap := &Tap{}
		w, err := tap.Watch(Filter{})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		check := func(what string, seen, missed uint64, events int) {
			t.Helper()
			if s, m := w.Counts(); s != seen || m != missed || len(w.waiting) != events {
				t.Errorf("%s: seen %d, missed %d, %d wait; want %d, %d, %d", what, s, m, len(w.waiting), seen, missed, events)
			}
		}
		many := make([]pipeline.Event, 3000)
		tap.Copy(Event{RequestID: "r"}, many).Show("")
		check("at once", 3000, 2000, 1000)
		time.Sleep(time.Second)
		tap.Copy(Event{RequestID: "r"}, many).Show("")
		check("unread", 6000, 4000+976, maxWaiting)
		if n := len(w.Take(nil)); n != maxWaiting {
			t.Errorf("read %d events, want %d", n, maxWaiting)
		}
		time.Sleep(time.Second)
		tap.Copy(Event{RequestID: "r"}, many[:7]).Show("")
		check("read", 6007, 4000+976, 7)
	})
}

// A watcher gets copies, and of a large event the beginning.
func TestCopies(t *testing.T) {
	tap := &Tap{}
	w, err := tap.Watch(Filter{})
	if err != nil {
		t.Fatal(err)
	}
	e := event("game", "start", "u", "s")
	e.Properties = []byte(strings.Repeat("x", maxText+1))
	b := tap.Copy(Event{RequestID: "r"}, []pipeline.Event{e})
	for _, text := range [][]byte{e.Project, e.Name, e.UserID, e.SessionID, e.Properties} {
		clear(text)
	}
	b.Show("events/o")
	got := w.Take(nil)
	want := []Event{{Time: time.UnixMilli(0).UTC(), Accepted: true, Project: "game", Name: "start", User: "u", Session: "s",
		ID: pipeline.UUID{}.String(), Object: "events/o", RequestID: "r", Text: strings.Repeat("x", maxText), Cut: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A watcher can match an object that was stored with the events in it: by receiver and seq.
func TestStored(t *testing.T) {
	tap := &Tap{}
	tap.Store(Stored{Object: "events/unseen"})
	(*Tap)(nil).Store(Stored{Object: "events/unseen"})
	w, err := tap.Watch(Filter{Name: "end", Stored: true})
	if err != nil {
		t.Fatal(err)
	}
	other, err := tap.Watch(Filter{})
	if err != nil {
		t.Fatal(err)
	}
	b := tap.Copy(Event{RequestID: "r", Receiver: "rx", Redriven: true},
		[]pipeline.Event{event("game", "start", "u1", "s1"), event("game", "end", "u2", "s2")})
	b.Number(40)
	b.Show("")
	s := Stored{Object: "events/o", Receiver: "rx", First: 40, Last: 41}
	tap.Store(s)
	got := w.Take(nil)
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	if e := got[0]; e.Name != "end" || e.Receiver != "rx" || e.Seq != 41 || !e.Redriven || e.Stored != nil {
		t.Errorf("got %+v", e)
	}
	if diff := cmp.Diff(&s, got[1].Stored); diff != "" || got[1].Time.IsZero() {
		t.Errorf("%s (-want +got):\n%s", got[1].Time, diff)
	}
	if got := read(other); len(got) != 2 {
		t.Errorf("a watcher who did not ask for objects saw %q", got)
	}
}

func TestTooManyWatchers(t *testing.T) {
	tap := &Tap{}
	var all []*Watcher
	for range maxWatchers {
		w, err := tap.Watch(Filter{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	if _, err := tap.Watch(Filter{}); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v, want %v", err, ErrTooMany)
	}
	all[3].Close()
	if _, err := tap.Watch(Filter{}); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
}

// Watchers come and go while events pass.
func TestTogether(t *testing.T) {
	tap := &Tap{}
	var g sync.WaitGroup
	for i := range 4 {
		g.Go(func() {
			for n := range 500 {
				tap.Copy(Event{RequestID: "r"}, []pipeline.Event{event("p", fmt.Sprint(i, n), "", "")}).Show("")
			}
		})
		g.Go(func() {
			for range 100 {
				w, err := tap.Watch(Filter{})
				if err != nil {
					t.Error(err)
					return
				}
				read(w)
				w.Close()
			}
		})
	}
	g.Wait()
	if tap.Watched() {
		t.Error("somebody looks after all have gone")
	}
}

// The cost of the tap for each event, in requests of 100 at 50,000 events a second: 2 of 100 events are copied. The
// watcher reads 100 requests at a time, as the API does every 200 ms, and its events are written as JSON.
//
// A receiver needs 2 µs of CPU for an event or more, so 60 ns/event are 3 %.
func BenchmarkTap(b *testing.B) {
	const size, copied, reads = 100, 2, 100
	for _, c := range []struct {
		name          string
		watched, read bool
		filter        Filter
	}{{name: "off"}, {name: "reads", watched: true, read: true}, {name: "slow", watched: true},
		{name: "rare", watched: true, read: true, filter: Filter{User: "nobody"}}} {
		b.Run(c.name, func(b *testing.B) {
			tap, g := &Tap{}, traffic.New("tap", 1)
			events := make([]pipeline.Event, size)
			for i := range events {
				events[i] = event("game", "level_finished", "u-1234567", "0193c0de-1234-7123-8123-123456789abc")
				events[i].Properties = g.Append(nil)
			}
			w := &Watcher{}
			if c.watched {
				var err error
				if w, err = tap.Watch(c.filter); err != nil {
					b.Fatal(err)
				}
				w.left() // begins with a full bucket
				w.bucket.Take(rate.Burst)
			}
			out := json.NewEncoder(io.Discard)
			out.SetEscapeHTML(false)
			var read []Event
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				w.bucket.GiveBack(copied)
				tap.Copy(Event{RequestID: "0193c0de12347123"}, events).Show("")
				if n++; !c.read || n%reads > 0 {
					continue
				}
				read = w.Take(read)
				for _, e := range read {
					out.Encode(struct {
						Item any `json:"item"`
					}{e})
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/event")
		})
	}
}

// Objects are stored while the last watcher closes.
func TestStoreWhileWatchersClose(t *testing.T) {
	var tap Tap
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				tap.Store(Stored{Object: "events/a"})
			}
		}
	})
	for range 20_000 {
		w, err := tap.Watch(Filter{})
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
	close(done)
	wg.Wait()
}
