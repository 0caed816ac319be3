package operate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader/audit"
)

// reingestWith runs a reingest of the day, modified by change, and returns the last line.
func reingestWith(t *testing.T, ex Executor, change func(*reingestParams)) (sum reingestLine, all []reingestLine,
	err error) {
	t.Helper()
	all, err = do[reingestLine](t, ex, "reingest", func(params any) {
		p := params.(*reingestParams)
		p.Since, p.Until = "2026-11-22", "2026-11-23"
		change(p)
	})
	if len(all) > 0 {
		sum = all[len(all)-1]
	}
	return sum, all, err
}

func TestWrongParamsOfReingest(t *testing.T) {
	for _, tt := range []struct {
		params reingestParams
		want   string
	}{
		{reingestParams{}, "choose objects by one of KEY, --prefix and --since"},
		{reingestParams{Keys: []string{key(0)}, Prefix: day}, "choose objects by one of"},
		{reingestParams{Prefix: day, Since: "1h"}, "choose objects by one of"},
		{reingestParams{Prefix: "logs/"}, `"logs/" is of no pipeline`},
		{reingestParams{Keys: []string{key(0), "x"}}, `"x" is of no pipeline`},
		{reingestParams{Since: "x", Pipeline: "events"}, `--since "x"`},
		{reingestParams{Since: "1h", Pipeline: "x"}, `--pipeline "x": set events or errors`},
		{reingestParams{Prefix: day, Parallel: -1}, "set 1 or more"},
	} {
		_, err := do[reingestLine](t, Local(objects().operator()), "reingest", func(params any) {
			if tt.params.Parallel == 0 {
				tt.params.Parallel = 1
			}
			tt.params.Until = "now"
			*params.(*reingestParams) = tt.params
		})
		wantError(t, err, tt.want, "%+v", tt.params)
	}
}

// A dry run reports the action for each object, and does nothing.
func TestReingestPlan(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*reingestParams)
		want   string // number of objects by action
	}{
		{"a time range", func(*reingestParams) {}, "dropped 1 load 3 skip 1"},
		{"replace", func(p *reingestParams) { p.Replace = true }, "dropped 1 load 1 replace 3"},
		{"a prefix", func(p *reingestParams) { p.Since, p.Prefix = "", key(0)[:len(key(0))-12] }, "skip 1"},
		{"keys", func(p *reingestParams) { p.Since, p.Keys = "", []string{key(3), key(4), key(4)} }, "load 2"},
		{"errors", func(p *reingestParams) { p.Pipeline = "errors" }, "load 1"},
	} {
		for way, ex := range objects().ways(t) {
			sum, _, err := reingestWith(t, ex, func(p *reingestParams) { p.DryRun = true; tt.change(p) })
			var plan []string
			for action, tally := range sum.Plan {
				plan = append(plan, fmt.Sprintf("%s %d", action, tally.Objects))
			}
			slices.Sort(plan)
			if got := strings.Join(plan, " "); err != nil || got != tt.want || !sum.DryRun || sum.Loaded != nil {
				t.Errorf("%s, %s: got %s, %v; want %s", way, tt.name, got, err, tt.want)
			}
		}
	}
	w := objects()
	if _, _, err := reingestWith(t, Local(w.operator()),
		func(p *reingestParams) { p.DryRun, p.Replace = true, true }); err != nil ||
		len(w.jobs) > 0 || w.loads[key(4)].State == pipeline.Loaded {
		t.Errorf("a dry run has changed something: %+v, %v", w.jobs, err)
	}
}

func TestReingest(t *testing.T) {
	w := objects()
	sum, _, err := reingestWith(t, Local(w.operator()), func(*reingestParams) {})
	if err != nil || sum.Loaded == nil || *sum.Loaded != (tally{Objects: 3, Bytes: 500, Rows: 5}) || sum.Failed != 0 {
		t.Errorf("got %+v, %v", sum.Loaded, err)
	}
	for i, want := range []pipeline.LoadState{pipeline.Loaded, pipeline.Loaded, pipeline.Loaded, pipeline.Dropped,
		pipeline.Loaded} {
		if got := w.loads[key(i)].State; got != want {
			t.Errorf("object %d is %s, want %s", i, got, want)
		}
	}
}

// Objects that cannot be loaded are named, and the rest is loaded.
func TestReingestFailures(t *testing.T) {
	w := objects()
	w.reingest = func(it audit.Item, _ string) (pipeline.Load, error) {
		if it.Object.Key == key(1) {
			return it.Entry, errors.New("damaged")
		}
		return pipeline.Load{Key: it.Object.Key, Rows: 1, Refused: []uint32{3}}, nil
	}
	sum, all, err := reingestWith(t, Local(w.operator()), func(p *reingestParams) {
		p.Since, p.Keys = "", []string{key(1), key(4), "events/none"}
	})
	wantError(t, err, "2 objects could not be loaded", "reingest")
	if sum.Failed != 2 || sum.Refused != 1 || sum.Loaded.Objects != 1 || len(all) != 3 {
		t.Errorf("got %+v", all)
	}
	var failed []string
	for _, l := range all[:2] {
		failed = append(failed, l.Key+": "+l.Error)
	}
	slices.Sort(failed)
	if want := []string{key(1) + ": damaged", "events/none: head events/none: no such object"}; !slices.Equal(failed,
		want) {
		t.Errorf("got %q, want %q", failed, want)
	}
	sum, _, err = reingestWith(t, Local(w.operator()), func(p *reingestParams) {
		p.Since, p.Keys, p.DryRun = "", []string{"events/none"}, true
	})
	wantError(t, err, "1 object could not be loaded", "a dry run of a missing object")
	if len(sum.Plan) != 0 || sum.Failed != 0 {
		t.Errorf("got %+v", sum)
	}
}

// A reingest waits for an unreachable server, and reports the wait.
func TestReingestWaits(t *testing.T) {
	w := newWorld()
	w.store(key(0), "a")
	tries := 0
	w.reingest = func(it audit.Item, _ string) (pipeline.Load, error) {
		if tries++; tries == 1 {
			return it.Entry, retry.As(retry.Outage, errors.New("away"))
		}
		return pipeline.Load{Rows: 1}, nil
	}
	sum, _, err := reingestWith(t, Local(w.operator()), func(*reingestParams) {})
	if err != nil || tries != 2 || sum.Loaded.Rows != 1 {
		t.Errorf("%d tries, %+v, %v", tries, sum, err)
	}
}

// An interrupted run with --replace continues under its own job and with its own range.
func TestReingestGoesOn(t *testing.T) {
	w := newWorld()
	w.store(key(0), "a")
	w.store(key(1), "a")
	w.load(key(0), pipeline.Loaded)
	w.load(key(1), pipeline.Loaded)
	ctx, cancel := context.WithCancel(t.Context())
	w.reingest = func(it audit.Item, job string) (pipeline.Load, error) {
		if it.Object.Key == key(1) {
			cancel()
			return it.Entry, ctx.Err()
		}
		l := it.Entry
		l.Job = job
		w.loads[l.Key] = l
		return l, nil
	}
	op, p := Find("reingest"), &reingestParams{Since: "2026-11-22", Until: "2026-11-23", Pipeline: "events", Replace: true,
		Parallel: 1}
	err := op.run(ctx, w.operator(), p, sink{item: func(any) error { return nil }, progress: func(progress) {}})
	wantError(t, err, "interrupted after 1 object and 1 row; nothing is double or lost", "reingest")
	job := w.jobs[p.selection()]
	if job.ID == "" || job.Finished {
		t.Fatalf("the job is %+v", job)
	}
	w.reingest = nil
	for _, tt := range []struct {
		anew bool
		want string
	}{{false, "done 1 replace 1"}, {true, "replace 2"}} {
		sum, all, err := reingestWith(t, Local(w.operator()), func(p *reingestParams) { p.Replace, p.Anew = true, tt.anew })
		var plan []string
		for action, tally := range sum.Plan {
			plan = append(plan, fmt.Sprintf("%s %d", action, tally.Objects))
		}
		slices.Sort(plan)
		if got := strings.Join(plan, " "); err != nil || got != tt.want {
			t.Errorf("anew %v: got %s, %v; want %s", tt.anew, got, err, tt.want)
		}
		if resumed := all[0].Resumed != nil; resumed == tt.anew || (sum.Job == job.ID) == tt.anew {
			t.Errorf("anew %v: resumed %v, job %s of %s", tt.anew, resumed, sum.Job, job.ID)
		}
		if j := w.jobs[p.selection()]; !j.Finished || j.Rows == 0 {
			t.Errorf("anew %v: the job is %+v", tt.anew, j)
		}
	}
}

// Loaded objects without rows in the table are loaded again, unless resends replaced all of their events.
func TestReingestOfCollapsed(t *testing.T) {
	w := newWorld()
	for i := range 2 {
		w.store(key(i), "a", "b")
		w.load(key(i), pipeline.Loaded)
		w.rows[key(i)] = nil
	}
	for _, e := range w.events[key(0)] {
		w.places = append(w.places, clickhouse.Place{EventID: e.ID.String()})
	}
	var loaded []string
	w.reingest = func(it audit.Item, _ string) (pipeline.Load, error) {
		loaded = append(loaded, it.Object.Key)
		return pipeline.Load{Rows: 2}, nil
	}
	sum, _, err := reingestWith(t, Local(w.operator()), func(*reingestParams) {})
	if err != nil || sum.Loaded.Rows != 2 || !slices.Equal(loaded, []string{key(1)}) {
		t.Errorf("loaded %q, %+v, %v", loaded, sum.Loaded, err)
	}
}

// A plan names the objects that the table will not keep.
func TestReingestOfExpired(t *testing.T) {
	w := newWorld()
	received := time.Date(2026, 11, 22, 3, 45, 0, 0, time.UTC)
	for i := range 2 {
		w.store(key(i), "a", "b")
		w.load(key(i), pipeline.Loaded, func(l *pipeline.Load) { l.Received = received })
	}
	w.expired = received.Add(time.Second)
	for _, dry := range []bool{true, false} {
		sum, _, err := reingestWith(t, Local(w.operator()), func(p *reingestParams) { p.Replace, p.DryRun = true, dry })
		if err != nil || sum.Expire == nil {
			t.Fatalf("%+v, %v", sum, err)
		}
		want := &expiring{tally{2, sum.Expire.Bytes, 4}, w.expired, []string{key(0), key(1)}}
		if diff := cmp.Diff(want, sum.Expire, cmp.AllowUnexported(expiring{})); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
		var text strings.Builder
		if err := printReingest(&text, &sum); err != nil || !strings.Contains(text.String(), "it would delete 4 rows of 2 objects again") ||
			!strings.Contains(text.String(), "\n         "+key(1)+"\n") {
			t.Errorf("%v, printed\n%s", err, text.String())
		}
	}
}

func TestSelection(t *testing.T) {
	a := (&reingestParams{Keys: []string{"a", "b"}}).selection()
	if b := (&reingestParams{Keys: []string{"b", "a"}}).selection(); a != b || !strings.HasPrefix(a, "2 keys, sha256 ") {
		t.Errorf("%s and %s", a, b)
	}
	if got := (&reingestParams{Prefix: "events/a"}).selection(); got != "prefix events/a" {
		t.Errorf("got %s", got)
	}
	if got := (&reingestParams{Pipeline: "events", Since: "1h",
		Until: "now"}).selection(); got != "events since 1h until now" {
		t.Errorf("got %s", got)
	}
}

func TestReadKeys(t *testing.T) {
	for _, tt := range []struct {
		keys []string
		in   string
		want []string
		err  string
	}{
		{[]string{"a"}, "b\n", []string{"a"}, ""},
		{[]string{"-"}, " b \n\nc", []string{"b", "c"}, ""},
		{[]string{"a", "-"}, "b\n", []string{"a", "b"}, ""},
		{[]string{"-"}, "\n", nil, "standard input has no key"},
	} {
		p := &reingestParams{Keys: tt.keys}
		err := ReadKeys(p, strings.NewReader(tt.in))
		wantError(t, err, tt.err, "%q", tt.in)
		if err == nil && !slices.Equal(p.Keys, tt.want) {
			t.Errorf("%q and %q: got %q, want %q", tt.keys, tt.in, p.Keys, tt.want)
		}
	}
}

func TestPrintReingest(t *testing.T) {
	began := time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)
	plan := map[audit.Action]*tally{audit.ActionSkip: {Objects: 1, Bytes: 100, Rows: 2},
		audit.ActionLoad: {Objects: 3, Bytes: 50}}
	for _, tt := range []struct {
		line reingestLine
		want string
	}{
		{reingestLine{Key: "k", Error: "why"}, "failed  k: why\n"},
		{reingestLine{Resumed: &began},
			"continuing the interrupted run that began at 2026-11-22T01:02:03Z (--anew starts from the beginning)\n"},
		{reingestLine{}, "no object matches\n"},
		{reingestLine{Plan: plan, DryRun: true},
			"       3 objects, 50 bytes, 0 rows: not loaded: to load\n        1 object, 100 bytes, 2 rows: loaded: left alone\n"},
		{reingestLine{Plan: plan, Loaded: &tally{Objects: 3, Rows: 30}, Refused: 1, Failed: 2, Seconds: 2},
			"       3 objects, 50 bytes, rows not counted: not loaded: to load\n" +
				"        1 object, 100 bytes, 2 rows: loaded: left alone\n" +
				"loaded 3 objects, 30 rows (1 refused) in 2.0 s, 15 rows/s; 2 failed\n"},
	} {
		var out bytes.Buffer
		if err := printReingest(&out, &tt.line); err != nil || out.String() != tt.want {
			t.Errorf("printed\n%swant\n%s", &out, tt.want)
		}
	}
}

// A relative range differs at each run. Its job is found only by absolute times.
func TestReingestOfDurationsAgo(t *testing.T) {
	w := newWorld()
	w.store(key(0), "a")
	w.load(key(0), pipeline.Loaded)
	stopped, cancel := context.WithCancel(t.Context())
	w.reingest = func(it audit.Item, _ string) (pipeline.Load, error) {
		cancel()
		return it.Entry, stopped.Err()
	}
	op, p := Find("reingest"), &reingestParams{Since: "876000h", Until: "now", Pipeline: "events", Replace: true, Parallel: 1}
	began := time.Now().UTC().Add(-876000 * time.Hour).Truncate(time.Second)
	err := op.run(stopped, w.operator(), p, sink{item: func(any) error { return nil }, progress: func(progress) {}})
	_, printed, _ := strings.Cut(fmt.Sprint(err), "with --since ")
	since, _, _ := strings.Cut(printed, " --until now continues")
	if from, parseErr := time.Parse(time.RFC3339, since); parseErr != nil || from.Before(began) {
		t.Fatalf("%v does not say that %s is the start", err, began)
	}
	job, ok := w.jobs["events since "+since+" until now"]
	if !ok || job.Finished {
		t.Fatalf("jobs %+v have none since %s", w.jobs, since)
	}
	w.reingest = nil
	for _, tt := range []struct {
		since   string
		resumed bool
	}{{"875000h", false}, {since, true}} {
		sum, all, err := reingestWith(t, Local(w.operator()), func(p *reingestParams) {
			p.Replace, p.Since, p.Until = true, tt.since, "now"
		})
		if resumed := all[0].Resumed != nil; err != nil || resumed != tt.resumed || (sum.Job == job.ID) != tt.resumed {
			t.Errorf("--since %s: resumed %v, job %s after %s, error %v", tt.since, resumed, sum.Job, job.ID, err)
		}
	}
	if _, ok := w.jobs["events since 875000h until now"]; ok {
		t.Errorf("jobs %+v: a duration names one", w.jobs)
	}
}
