package operate

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
)

var novemberDay = sweepParams{Since: "2026-11-22", Until: "2026-11-23", Grace: "0s"}

// printed runs an operation and returns its output for people.
func printed(t *testing.T, o *Operator, name string, params any, out io.Writer) error {
	t.Helper()
	return Find(name).Show(t.Context(), Local(o), params, Output{Out: out, Err: io.Discard})
}

func printedJSON(t *testing.T, o *Operator, name string, params any, out io.Writer) error {
	t.Helper()
	return Find(name).Show(t.Context(), Local(o), params, Output{Out: out, Err: io.Discard, JSON: true})
}

// Objects that are not loaded are enqueued, once an hour unless told again.
func TestSweep(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*sweepParams)
		want   string // for the pipeline events
		told   []string
	}{
		{"a day", func(*sweepParams) {}, "events 5 1 2 0 0 1 1", []string{key(1), key(4), errorsKey}},
		{"again", func(p *sweepParams) { p.Again = true }, "events 5 1 2 0 0 1 1",
			[]string{key(1) + " again", key(4) + " again", errorsKey + " again"}},
		{"a dry run", func(p *sweepParams) { p.DryRun = true }, "events 5 1 2 0 0 1 1", nil},
		{"another day", func(p *sweepParams) { p.Since, p.Until = "2026-11-20", "2026-11-21" }, "events 0 0 0 0 0 0 0", nil},
		{"everything", func(p *sweepParams) { p.All, p.Since, p.Until = true, "2026-11-20", "2026-11-21" },
			"events 5 1 2 0 0 1 1", []string{key(1), key(4), errorsKey}},
	} {
		w := objects()
		p := novemberDay
		tt.change(&p)
		var out bytes.Buffer
		if err := printed(t, w.operator(), "sweep", &p, &out); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(got, "DEAD DROPPED "+tt.want) ||
			strings.Contains(got, "Dry run") != p.DryRun {
			t.Errorf("%s: printed %s, want %s", tt.name, &out, tt.want)
		}
		if !slices.Equal(w.enqueued, tt.told) {
			t.Errorf("%s: enqueued %q, want %q", tt.name, w.enqueued, tt.told)
		}
	}
	w := objects()
	var out bytes.Buffer
	if err := printedJSON(t, w.operator(), "sweep", &novemberDay, &out); err != nil ||
		strings.Count(out.String(), "\n") != 2 || !strings.HasPrefix(out.String(), `{"pipeline":"events",`) {
		t.Errorf("printed %s, %v", &out, err)
	}
}

func TestSweepIsRefused(t *testing.T) {
	for _, tt := range []struct {
		params sweepParams
		world  func(*world, *Operator)
		want   string
	}{
		{sweepParams{Since: "x", Until: "now"}, nil, `--since "x"`},
		{novemberDay, func(_ *world, o *Operator) { o.Config.Storage.Notify = "none" },
			"queue.type or storage.notify is none: there is no queue. Loaders sweep every 5m (sweep.every), the whole bucket " +
				"every 24h"},
		{novemberDay, func(w *world, _ *Operator) { w.away["queue"] = errAway }, "connection refused"},
		{novemberDay, func(w *world, _ *Operator) { w.away["ledger"] = errAway }, "connection refused"},
		{novemberDay, func(w *world, _ *Operator) { w.away["bucket"] = errAway }, "connection refused"},
	} {
		w := objects()
		o := w.operator()
		if tt.world != nil {
			tt.world(w, o)
		}
		err := printed(t, o, "sweep", &tt.params, io.Discard)
		wantError(t, err, tt.want, "%+v", tt.params)
		if len(w.enqueued) > 0 {
			t.Errorf("%+v: %q is enqueued", tt.params, w.enqueued)
		}
	}
	// Without a queue, objects that are not loaded can be counted.
	w := objects()
	o := w.operator()
	o.Config.Storage.Notify = "none"
	p := novemberDay
	p.DryRun = true
	if err := printed(t, o, "sweep", &p, io.Discard); err != nil {
		t.Error(err)
	}
}

// Bucket, ledger and table agree, or the command names the difference and fails.
func TestVerify(t *testing.T) {
	agreed := func() *world {
		w := newWorld()
		for i := range 2 {
			w.store(key(i), "a", "b")
			w.load(key(i), pipeline.Loaded)
		}
		return w
	}
	for _, tt := range []struct {
		name   string
		change func(*world)
		want   []string // kind and key of each difference
	}{
		{"they agree", func(*world) {}, nil},
		{"an object is not loaded", func(w *world) { w.store(key(2), "a") }, []string{"missing " + key(2)}},
		{"a dead letter", func(w *world) { w.store(key(2), "a"); w.load(key(2), pipeline.Dead) }, []string{"dead " + key(2)}},
		{"rows are gone", func(w *world) { w.rows[key(0)] = w.rows[key(0)][:1] }, []string{"short " + key(0)}},
		{"an object is gone", func(w *world) { delete(w.objects, key(1)) }, []string{"gone " + key(1)}},
		{"dropped", func(w *world) { w.store(key(2), "a"); w.load(key(2), pipeline.Dropped) }, nil},
	} {
		w := agreed()
		tt.change(w)
		var out bytes.Buffer
		p := verifyParams{Since: "2026-11-22", Until: "2026-11-23", Grace: "1m"}
		err := printed(t, w.operator(), "verify", &p, &out)
		if differ := err != nil && err.Error() == "bucket, ledger and table differ: see above"; differ != (tt.want != nil) {
			t.Errorf("%s: %v\n%s", tt.name, err, &out)
		}
		text := strings.Join(strings.Fields(out.String()), " ")
		for _, want := range tt.want {
			if !strings.Contains(text, want+": ") {
				t.Errorf("%s: printed\n%s, want %s", tt.name, &out, want)
			}
		}
		if tt.want == nil && !strings.Contains(text, "0 differences") {
			t.Errorf("%s: printed\n%s", tt.name, &out)
		}
		var kept bytes.Buffer
		keptErr := printed(t, w.operator(), "verify", &verifyParams{Last: true}, &kept)
		if diff := cmp.Diff(out.String(), kept.String()); diff != "" || (err == nil) != (keptErr == nil) {
			t.Errorf("%s: --last: %v, want %v (-run +last):\n%s", tt.name, keptErr, err, diff)
		}
	}
	w := agreed()
	wantError(t, printed(t, w.operator(), "verify", &verifyParams{Last: true}, io.Discard), "no result of verify is kept", "--last")
	var out bytes.Buffer
	if err := printedJSON(t, w.operator(), "verify",
		&verifyParams{Since: "2026-11-22", Until: "2026-11-23", Grace: "0s"}, &out); err != nil ||
		!strings.HasPrefix(out.String(), `{"pipeline":"events","objects":2,`) {
		t.Errorf("printed %s, %v", &out, err)
	}
	err := printed(t, w.operator(), "verify", &verifyParams{Since: "x"}, io.Discard)
	wantError(t, err, `--since "x"`, "verify")
	// Of many differences, the first are kept.
	w = newWorld()
	for i := range keptDifferences + 1 {
		w.store(fmt.Sprintf("events/dt=2026-11-22/hr=03/%d.parquet", i), "a")
	}
	wantError(t, printed(t, w.operator(), "verify", &verifyParams{Since: "2026-11-22", Until: "2026-11-23", Grace: "0s"},
		io.Discard), "differ", "verify")
	out.Reset()
	err = printed(t, w.operator(), "verify", &verifyParams{Last: true}, &out)
	if text := out.String(); err == nil || strings.Count(text, "  missing ") != keptDifferences || !strings.Contains(text, "and 1 more") {
		t.Errorf("--last: %v, printed\n%s", err, text)
	}
}

// A time is an instant, a day, or a duration ago.
func TestSpans(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct{ since, until, from, to, err string }{
		{"24h", "now", "2026-11-21T12:00:00Z", "2026-11-22T13:00:00Z", ""}, // an hour for receivers whose clocks are ahead
		{"2026-11-20", "2026-11-21", "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z", ""},
		{"2026-11-20T01:02", "1h", "2026-11-20T01:02:00Z", "2026-11-22T11:00:00Z", ""},
		{"2026-11-20T01:02:03+01:00", "0s", "2026-11-20T00:02:03Z", "2026-11-22T12:00:00Z", ""},
		{"7d", "1d", "2026-11-15T12:00:00Z", "2026-11-21T12:00:00Z", ""},
		{"-7d", "now", "", "", `--since "-7d": want`},
		{"1h", "1h", "", "", "--since 1h is not before --until 1h"},
		{"now", "now", "", "", `--since "now": want 2026-11-22, 2026-11-22T03:00:00Z, or a duration ago, such as 24h`},
		{"1h", "later", "", "", `--until "later": want`},
	} {
		got, err := parseSpanAt(tt.since, tt.until, now)
		wantError(t, err, tt.err, "%s to %s", tt.since, tt.until)
		if from, to := got.From.Format(time.RFC3339), got.To.Format(time.RFC3339); err == nil &&
			(from != tt.from || to != tt.to) {
			t.Errorf("%s to %s: got %s to %s, want %s to %s", tt.since, tt.until, from, to, tt.from, tt.to)
		}
	}
}
