package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
)

// desk is a claim that keeps its note.
type desk struct {
	err   error // of acquiring the claim
	lost  bool  // from the first Renew on, another process has it
	note  string
	held  bool
	taken int
}

func (d *desk) claim(context.Context) (Notebook, bool, error) {
	if d.err != nil {
		return nil, false, d.err
	}
	if d.held {
		return nil, false, nil
	}
	d.held = true
	d.taken++
	return &paper{desk: d, note: d.note}, true, nil
}

type paper struct {
	desk *desk
	note string
}

func (p *paper) Note() string        { return p.note }
func (p *paper) SetNote(note string) { p.note = note }
func (p *paper) Renew(context.Context) (bool, error) {
	p.desk.note = p.note
	return !p.desk.lost, nil
}
func (p *paper) Expire(context.Context) error {
	p.desk.note, p.desk.held = p.note, false
	return nil
}

// sweeping is a full sweep over a world. Its queue accepts room objects, and more after a time.
type sweeping struct {
	*FullSweep
	told   []string
	room   int
	full   time.Time
	enough int // number of objects after which stop is called; 0: never
	stop   func()
	reg    *prometheus.Registry
}

func newSweeping(s *world, d *desk) *sweeping {
	w := &sweeping{reg: prometheus.NewRegistry()}
	opts := FullSweepOptions{Bucket: s, Ledger: s, Claim: d.claim, Every: 24 * time.Hour, Retry: 5 * time.Minute,
		Rate: 10, Span: 7 * 24 * time.Hour, Grace: 2 * time.Minute, TTL: 2 * time.Minute}
	opts.Enqueue = func(_ context.Context, n pipeline.Notification) (bool, error) {
		if len(w.told) == w.room && time.Now().Before(w.full) {
			return false, ErrEnqueueLater
		}
		if w.told = append(w.told, n.Key); len(w.told) == w.enough {
			w.stop()
		}
		return false, nil
	}
	w.FullSweep = NewFullSweep(pipeline.Events, opts, slog.New(slog.DiscardHandler), w.reg)
	return w
}

func (w *sweeping) runFor(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	w.Run(ctx)
}

// Objects outside the span are found by when they were stored, wherever they are, in one pass a day.
func TestFullSweepFindsWhatIsOutsideTheSpan(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		now := time.Now().UTC()
		old := now.Add(-100 * 24 * time.Hour)
		recent := pipeline.Key{Prefix: "events/", Time: now.Add(-time.Hour), Receiver: "r",
			Format: pipeline.Parquet}.String()
		late := pipeline.Key{Prefix: "events/", Time: old, Receiver: "r", Format: pipeline.Parquet}.String()
		s := &world{objects: map[string]time.Time{
			recent:                                     now.Add(-time.Hour), // the periodic sweep finds it
			late:                                       now.Add(-time.Hour), // stayed in a write-ahead log
			"events/dt=2020-01-01/import.ndjson":       now.Add(-time.Hour),
			"events/dt=2020-01-02/loaded.ndjson":       old,
			"events/dt=2020-01-03/dead.ndjson":         old,
			"events/dt=2020-01-03/dropped.ndjson":      old,
			"events/dt=2050-01-01/future.ndjson":       now.Add(-time.Hour),
			"events/dt=2020/m=1/folder.ndjson":         now.Add(-time.Hour),
			"events/dt=garbage/x.ndjson":               now.Add(-time.Hour),
			"events/imports/dt=2020-01-01/hive.ndjson": now.Add(-time.Hour),
			"events/readme.txt":                        now.Add(-time.Hour),
			// Outside the folders of days, a file counts by when it was stored.
			"events/young.ndjson":          now.Add(-time.Hour),
			"other/dt=2020-01-01/x.ndjson": old,
		}, states: map[string]pipeline.LoadState{"events/dt=2020-01-02/loaded.ndjson": pipeline.Loaded,
			"events/dt=2020-01-03/dead.ndjson":    pipeline.Dead,
			"events/dt=2020-01-03/dropped.ndjson": pipeline.Dropped}}
		want := []string{"events/dt=2020-01-01/import.ndjson", "events/dt=2020/m=1/folder.ndjson", late,
			"events/dt=2050-01-01/future.ndjson",
			"events/dt=garbage/x.ndjson", "events/imports/dt=2020-01-01/hive.ndjson"}
		slices.Sort(want)
		d := &desk{}
		w := newSweeping(s, d)
		w.runFor(t, time.Hour)
		if slices.Sort(w.told); !slices.Equal(w.told, want) {
			t.Errorf("found\n got %q\nwant %q", w.told, want)
		}
		families, err := w.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		counted := map[string]float64{}
		for _, f := range families {
			counted[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
		}
		if counted["penstock_full_sweep_found_objects_total"] != float64(len(want)) ||
			counted["penstock_full_sweep_listed_objects_total"] != float64(len(want)+3) ||
			counted["penstock_full_sweep_last_success_timestamp_seconds"] == 0 {
			t.Errorf("metrics %v", counted)
		}
		if d.taken > 2 || s.pages > 3 {
			t.Errorf("in an hour: the claim was taken %d times, %d pages were listed", d.taken, s.pages)
		}
		// They were not loaded meanwhile, because the queue was purged. The next day's pass finds them again, in another
		// process that has only the note.
		w = newSweeping(s, d)
		w.runFor(t, 25*time.Hour)
		if slices.Sort(w.told); !slices.Equal(w.told, want) {
			t.Errorf("on the next day found\n got %q\nwant %q", w.told, want)
		}
		for _, key := range want {
			s.states[key] = pipeline.Loaded
		}
		w = newSweeping(s, d)
		w.runFor(t, 25*time.Hour) // a clean pass
		pages := s.pages
		s.queries = 0
		s.objects["events/dt=2020-01-02/new.ndjson"] = time.Now()
		w.runFor(t, 25*time.Hour)
		if want := []string{"events/dt=2020-01-02/new.ndjson"}; !slices.Equal(w.told, want) || s.pages == pages {
			t.Errorf("found %q, want %q", w.told, want)
		}
		if s.queries != 2 {
			t.Errorf("%d queries of the ledger, want one for the page with a new object and one at the end", s.queries)
		}
	})
}

// An interrupted pass continues after the last page, also in another process, and its rate is limited.
func TestFullSweepContinues(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newWorld()
		s.fail = errors.New("the store is away")
		for i := range 100 * worldPage {
			s.objects[fmt.Sprintf("events/dt=2020-01-01/%04d.ndjson", i)] = time.Now()
		}
		d := &desk{}
		w := newSweeping(s, d)
		w.runFor(t, 5*time.Minute+time.Second) // young objects are skipped, and the pass fails at the second page
		if len(w.told) != worldPage {
			t.Errorf("%d found before the store went away, want %d", len(w.told), worldPage)
		}
		told := w.told
		w = newSweeping(s, d)
		began := time.Now()
		var ctx context.Context
		ctx, w.stop = context.WithCancel(t.Context())
		w.enough = 300
		w.Run(ctx)
		if n := len(w.told); n == 0 || n == 99*worldPage {
			t.Errorf("%d found until it was stopped", n)
		}
		told = append(told, w.told...)
		w = newSweeping(s, d)
		w.room, w.full = 55, time.Now().Add(30*time.Minute)
		w.runFor(t, 2*time.Hour)
		told = append(told, w.told...)
		slices.Sort(told)
		if told = slices.Compact(told); len(told) != len(s.objects) {
			t.Errorf("%d found by all of them, want %d", len(told), len(s.objects))
		}
		if took := time.Since(began); s.pages > 110 || took < 10*time.Second {
			t.Errorf("%d pages in %s", s.pages, took)
		}
	})
}

// While another process has the claim, nothing is listed.
func TestFullSweepIsOneProcess(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := &world{objects: map[string]time.Time{"events/dt=2020-01-01/x.ndjson": time.Now().Add(-time.Hour)}}
		w := newSweeping(s, &desk{held: true})
		w.runFor(t, time.Hour)
		if len(w.told) > 0 || s.pages > 0 {
			t.Errorf("%d pages, found %q", s.pages, w.told)
		}
	})
}

// Objects and outside together list every object once, whatever the span.
func TestOutsideIsTheRest(t *testing.T) {
	s := newWorld()
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	for i := range 30 {
		at := day.Add(time.Duration(i) * 7 * time.Hour)
		s.objects[pipeline.Key{Prefix: "events/", Time: at, Receiver: "r", Seq: 1,
			Format: pipeline.NDJSON}.String()] = at.Add(time.Minute)
		today := "dt=" + at.Format("2006-01-02")
		for _, name := range []string{today + "/hand-%d.ndjson", "top-%d.ndjson", "a/" + today + "/%d.jsonl", "dt=/%d.ndjson",
			"dt=2026-11/%d.ndjson", "dt=2026-11-22x/%d.ndjson", "dt=2026-13-45/%d.ndjson", "zz/%d.parquet",
			"dt=~/%d.ndjson", "dt=x/hr=1/%d.ndjson"} {
			s.objects["events/"+fmt.Sprintf(name, i)] = at
		}
	}
	for _, span := range []Span{{}, {day, day.Add(time.Hour)}, {day.Add(30 * time.Hour), day.Add(31 * time.Hour)},
		{day.Add(20 * time.Hour), day.Add(100 * time.Hour)},
		{day.Add(24 * time.Hour), day.Add(72 * time.Hour)}, {day.Add(-1000 * time.Hour), day.Add(1000 * time.Hour)},
		{day.Add(-1000 * time.Hour), day.Add(-900 * time.Hour)}} {
		seen := map[string]int{}
		count := func(page []pipeline.Object) error {
			for _, o := range page {
				seen[o.Key]++
			}
			return nil
		}
		if !span.From.IsZero() {
			if err := InSpan(pipeline.Events, span).Objects(t.Context(), s, count); err != nil {
				t.Fatal(err)
			}
		}
		if err := outside(pipeline.Events, span.contains).Objects(t.Context(), s, count); err != nil {
			t.Fatal(err)
		}
		for key := range s.objects {
			if seen[key] != 1 {
				t.Errorf("from %s to %s: %s was listed %d times", span.From, span.To, key, seen[key])
			}
		}
	}
}

// A pass that loses its claim ends at once. The other process continues from the note.
func TestFullSweepLosesItsClaim(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newWorld()
		for i := range 1000 * worldPage {
			s.objects[fmt.Sprintf("events/dt=2020-01-01/%05d.ndjson", i)] = time.Now()
		}
		d := &desk{lost: true}
		w := newSweeping(s, d)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Minute)
		defer cancel()
		time.Sleep(3 * time.Minute) // beyond the grace
		if _, err := w.turn(ctx); err == nil || !strings.Contains(err.Error(), "claim was lost") {
			t.Errorf("error %v, want that the claim was lost", err)
		}
		if s.pages < 2 || s.pages > 500 || !strings.Contains(d.note, `"cursor":"events/dt=2020-01-01/`) {
			t.Errorf("%d pages, note %s", s.pages, d.note)
		}
	})
}

// Without a claim nothing is listed. An unreadable note counts as the note of a first pass.
func TestFullSweepStartsAnew(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newWorld()
		s.objects["events/dt=2020-01-01/x.ndjson"] = time.Now()
		time.Sleep(time.Hour)
		d := &desk{err: errors.New("the store is away"), note: "no JSON"}
		w := newSweeping(s, d)
		if _, err := w.turn(t.Context()); !errors.Is(err, d.err) || s.pages > 0 {
			t.Errorf("error %v after %d pages", err, s.pages)
		}
		d.err = nil
		next, err := w.turn(t.Context())
		if err != nil || len(w.told) != 1 || !next.Equal(time.Now().Add(24*time.Hour)) {
			t.Errorf("found %q, the next pass is due %s, error %v", w.told, next, err)
		}
	})
}

// An interrupted listing continues after the last key, in any range.
func TestScopeContinues(t *testing.T) {
	s := newWorld()
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	for i := range 30 {
		for _, folder := range []string{"a", "dt=2026-11-20", "zz"} {
			s.objects[fmt.Sprintf("events/%s/%02d.ndjson", folder, i)] = day.Add(time.Hour)
		}
	}
	scope := InSpan(pipeline.Events, Span{day, day.Add(24 * time.Hour)})
	for stop := range 9 {
		seen, last := map[string]int{}, ""
		pages := 0
		list := func() error {
			return scope.List(t.Context(), s, last, func(p Page) error {
				if pages++; pages == stop+1 {
					return errors.New("interrupted")
				}
				for _, o := range p.Objects {
					seen[o.Key]++
				}
				last = p.Last
				return nil
			})
		}
		if err := list(); err == nil {
			t.Fatal("it was not interrupted")
		}
		if err := list(); err != nil || len(seen) != len(s.objects) {
			t.Errorf("interrupted at page %d: %d objects, want %d; error %v", stop, len(seen), len(s.objects), err)
		}
		for key, n := range seen {
			if n != 1 {
				t.Errorf("interrupted at page %d: %s was listed %d times", stop, key, n)
			}
		}
	}
}

// A pass does not finish while the ledger is unreachable, even if it lists nothing to compare.
func TestFullSweepNeedsTheLedger(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s, d := newWorld(), &desk{}
		s.failing = "ledger"
		w := newSweeping(s, d)
		if _, err := w.turn(t.Context()); err == nil || !strings.Contains(err.Error(), "ledger") {
			t.Errorf("error %v, want the ledger's", err)
		}
		if !strings.Contains(d.note, `"finished":"0001-01-01T00:00:00Z"`) {
			t.Errorf("note %s: finished", d.note)
		}
		s.failing = ""
		if next, err := w.turn(t.Context()); err != nil || !next.Equal(time.Now().Add(24*time.Hour)) {
			t.Errorf("the next pass is due %s, error %v", next, err)
		}
	})
}
