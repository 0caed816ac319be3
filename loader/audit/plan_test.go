package audit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// The action depends on ledger, table, and how the object was chosen.
func TestDecide(t *testing.T) {
	loaded := pipeline.Load{State: pipeline.Loaded, Rows: 3, Job: "old"}
	for _, c := range []struct {
		job     string
		entry   *pipeline.Load
		present bool
		want    Action
	}{
		{"", nil, false, ActionLoad},
		{"", nil, true, ActionLoad}, // the ledger was lost: loading will find the rows
		{"", &loaded, true, ActionSkip},
		{"", &loaded, false, ActionAgain},
		{"", &pipeline.Load{State: pipeline.Loaded}, false, ActionSkip}, // an object without rows
		{"", &pipeline.Load{State: pipeline.Dead}, false, ActionLoad},
		{"", &pipeline.Load{State: pipeline.Dropped}, false, ActionDropped},
		{"j", &pipeline.Load{State: pipeline.Dropped}, false, ActionDropped},
		{"", &pipeline.Load{State: pipeline.Loading}, true, ActionLoad},
		{"j", nil, false, ActionLoad},
		{"j", nil, true, ActionReplace},
		{"j", &loaded, true, ActionReplace},
		{"old", &loaded, true, ActionDone},
		{"j", &pipeline.Load{State: pipeline.Failed, Job: "j"}, true, ActionReplace},
	} {
		plan := Plan{Job: c.job}
		entries := map[string]pipeline.Load{}
		if c.entry != nil {
			entries["k"] = *c.entry
		}
		if got := plan.Decide([]pipeline.Object{{Key: "k"}}, entries,
			map[string]bool{"k": c.present})[0].Action; got != c.want {
			t.Errorf("job %q, entry %+v, present %v: got %s, want %s", c.job, c.entry, c.present, got, c.want)
		}
	}
}

// A re-ingest skips objects whose rows have expired.
func TestReingestLeavesExpired(t *testing.T) {
	loaded := pipeline.Load{Key: "k", State: pipeline.Loaded, Rows: 2, Received: noon}
	for _, c := range []struct {
		job     string
		expired time.Time
		present bool
		want    Action
		warned  bool
	}{
		{"", noon.Add(time.Millisecond), false, ActionExpired, false},
		{"job", noon.Add(time.Millisecond), false, ActionExpired, false},
		{"", noon, false, ActionAgain, false},
		{"", time.Time{}, false, ActionAgain, false},
		{"job", time.Time{}, false, ActionReplace, false},
		{"", noon.Add(time.Millisecond), true, ActionSkip, false},
		{"job", noon.Add(time.Millisecond), true, ActionReplace, true},
	} {
		for _, expiry := range []pipeline.Expiry{{Received: c.expired}, {Time: c.expired}} {
			plan := Plan{Job: c.job, Expired: expiry}
			got := plan.Decide([]pipeline.Object{{Key: "k"}}, map[string]pipeline.Load{"k": loaded},
				map[string]bool{"k": c.present})[0]
			if got.Action != c.want || got.Limit.IsZero() == c.warned {
				t.Errorf("%+v, %+v: %s, rows older than %s expire", c, expiry, got.Action, got.Limit)
			}
		}
	}
	// Objects that were never loaded are loaded, with a warning.
	plan := Plan{Expired: pipeline.Expiry{Time: noon}}
	for at, warned := range map[time.Time]bool{noon.Add(-time.Hour): true, noon: false} {
		for _, o := range []pipeline.Object{{Key: "k", Modified: at}, {Key: "k", Modified: noon.Add(-time.Minute),
			Meta: pipeline.Meta{LastReceived: at.UnixMilli()}}} {
			got := plan.Decide([]pipeline.Object{o}, nil, nil)[0]
			if got.Action != ActionLoad || got.Limit.Equal(noon) != warned {
				t.Errorf("%+v: %s, rows older than %s expire", o, got.Action, got.Limit)
			}
		}
	}
}

// Objects are chosen by keys, by a prefix or by a span. Files that are not data are never chosen.
func TestSelection(t *testing.T) {
	w := newWorld()
	ours := noonKey(1)
	for _, key := range []string{ours, "events/imports/a.ndjson", "events/imports/_SUCCESS",
		"errors/dt=2020-01-01/b.ndjson"} {
		w.objects[key] = noon
	}
	many := []string{ours, "errors/dt=2020-01-01/b.ndjson", ours, "events/gone.ndjson"}
	day := Span{noon.Add(-time.Hour), noon.Add(time.Hour)}
	for _, c := range []struct {
		name    string
		s       Selection
		want    string
		missing string
	}{
		{"keys of two pipelines, one twice", Selection{Keys: many}, "[" + ours + " errors/dt=2020-01-01/b.ndjson]",
			"[events/gone.ndjson]"},
		{"a prefix", Selection{Prefix: "events/imports/"}, "[events/imports/a.ndjson]", "[]"},
		{"a span", Selection{Spec: pipeline.Events, Span: day}, "[" + ours + " events/imports/a.ndjson]", "[]"},
		{"a span of the other pipeline", Selection{Spec: pipeline.Errors, Span: day}, "[]", "[]"},
	} {
		got, gone := []string{}, []string{}
		err := c.s.Objects(t.Context(), w, func(spec pipeline.Spec, page []pipeline.Object) error {
			for _, o := range page {
				if !strings.HasPrefix(o.Key, spec.Prefix) {
					t.Errorf("%s: %s is of %s", c.name, o.Key, spec.Name)
				}
				got = append(got, o.Key)
			}
			return nil
		}, func(key string, err error) error {
			gone = append(gone, key)
			return nil
		})
		if err != nil || fmt.Sprint(got) != c.want || fmt.Sprint(gone) != c.missing {
			t.Errorf("%s: %v, missing %v, error %v, want %s, %s", c.name, got, gone, err, c.want, c.missing)
		}
	}
}

// A selection ends at the first error that its caller returns.
func TestSelectionFails(t *testing.T) {
	w := newWorld()
	w.objects["events/a.ndjson"] = noon
	none := func(pipeline.Spec, []pipeline.Object) error { return nil }
	pass := func(_ string, err error) error { return err }
	for _, c := range []struct {
		s       Selection
		failing string
		each    func(pipeline.Spec, []pipeline.Object) error
	}{
		{Selection{Keys: []string{"neither/a.ndjson"}}, "", none},
		{Selection{Prefix: "neither/"}, "", none},
		{Selection{Keys: []string{"events/a.ndjson"}}, "head", none},
		{Selection{Prefix: "events/"}, "list events/", none},
		{Selection{Keys: []string{"events/a.ndjson"}}, "",
			func(pipeline.Spec, []pipeline.Object) error { return errFailing("each") }},
	} {
		w.failing = c.failing
		if err := c.s.Objects(t.Context(), w, c.each, pass); err == nil {
			t.Errorf("%+v, %q fails: no error", c.s, c.failing)
		}
	}
}

// A plan follows from ledger and table.
func TestPlanItems(t *testing.T) {
	w := newWorld()
	for key, state := range map[string]pipeline.LoadState{"events/a": pipeline.Loaded, "events/b": pipeline.Loaded,
		"events/c": pipeline.Dead} {
		w.objects[key], w.states[key] = noon, state
	}
	w.rows["events/b"] = []uint32{}
	page := []pipeline.Object{{Key: "events/a"}, {Key: "events/b"}, {Key: "events/c"}, {Key: "events/d"}}
	for _, c := range []struct {
		expired time.Time
		want    []Action
	}{
		{time.Time{}, []Action{ActionSkip, ActionAgain, ActionLoad, ActionLoad}},
		{noon.Add(time.Hour), []Action{ActionSkip, ActionExpired, ActionLoad, ActionLoad}},
	} {
		w.expired.Received = c.expired
		items, err := Plan{}.Items(t.Context(), pipeline.Events, page, w, w)
		var got []Action
		for _, it := range items {
			got = append(got, it.Action)
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("expired before %s: %v, %v, want %v", c.expired, got, err, c.want)
		}
	}
	for _, call := range []string{"ledger", "objects", "expired"} {
		w.failing = call
		if _, err := (Plan{}).Items(t.Context(), pipeline.Events, page, w, w); !errors.Is(err, errFailing(call)) {
			t.Errorf("%s fails: error %v", call, err)
		}
	}
}

// Missing rows are no reason to load an object again if clients' resends replaced all of them.
func TestCollapsed(t *testing.T) {
	for _, c := range []struct {
		name      string
		change    func(w *world, key string)
		collapsed bool
		err       bool
	}{
		{"each event is there", func(*world, string) {}, true, false},
		{"one is not", func(w *world, key string) { delete(w.known, w.events[key][1].Identity()) }, false, false},
		{"one is not, and has expired", func(w *world, key string) {
			delete(w.known, w.events[key][1].Identity())
			w.expired.Time = pipeline.Millis(w.events[key][1].Time() + 1)
		}, true, false},
		{"all have expired", func(w *world, _ string) {
			clear(w.known)
			w.expired.Time = noon.Add(time.Hour)
		}, true, false},
		{"the object is empty", func(w *world, key string) { w.events[key] = nil }, false, false},
		{"it cannot be read", func(w *world, _ string) { w.failing = "read" }, false, false},
		{"the table is away", func(w *world, _ string) { w.failing, w.class = "known", retry.Outage }, false, true},
	} {
		w, key := newNoon()
		for i := range w.events[key] {
			w.known[w.events[key][i].Identity()] = true
		}
		c.change(w, key)
		got, err := Collapsed(t.Context(), w, w,
			Item{Object: pipeline.Object{Key: key}, Entry: pipeline.Load{Pipeline: "events"}})
		if got != c.collapsed || (err != nil) != c.err {
			t.Errorf("%s: %v, %v, want %v, error %v", c.name, got, err, c.collapsed, c.err)
		}
	}
}
