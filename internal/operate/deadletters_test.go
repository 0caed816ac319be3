package operate

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/pipeline"
)

const errorsKey = "errors/dt=2026-11-22/hr=03/20261122T034509.000Z-r1-9.ndjson.zst"

// letters returns a world with three dead letters and a loaded object.
func letters() *world {
	w := newWorld()
	for i, code := range []string{"object_damaged", "killed"} {
		w.store(key(i), "a")
		w.load(key(i), pipeline.Dead, func(l *pipeline.Load) {
			l.Code, l.Error, l.Attempts, l.Failures = code, "reason "+code, 4, 3
		})
	}
	w.store(key(2), "a")
	w.load(key(2), pipeline.Loaded)
	w.load(errorsKey, pipeline.Dead, func(l *pipeline.Load) { l.Code, l.Error = "object_missing", "reason gone" })
	return w
}

func TestChooseLetters(t *testing.T) {
	for _, tt := range []struct {
		filter letterFilter
		want   []string
		err    string
	}{
		{letterFilter{}, []string{key(0), key(1), errorsKey}, ""},
		{letterFilter{Keys: []string{key(1)}}, []string{key(1)}, ""},
		{letterFilter{Pipeline: "errors"}, []string{errorsKey}, ""},
		{letterFilter{Code: "killed"}, []string{key(1)}, ""},
		{letterFilter{Reason: "damaged"}, []string{key(0)}, ""},
		{letterFilter{Keys: []string{key(2)}}, nil, key(2) + " is neither a dead letter nor failing"},
		{letterFilter{Pipeline: "logs"}, nil, `--pipeline "logs": set events or errors`},
	} {
		for name, ex := range letters().ways(t) {
			got, err := do[pipeline.DeadLetter](t, ex, "dlq list", func(p any) { *p.(*letterFilter) = tt.filter })
			var keys []string
			for _, l := range got {
				keys = append(keys, l.Key)
			}
			wantError(t, err, tt.err, "%s %+v", name, tt.filter)
			if !slices.Equal(keys, tt.want) {
				t.Errorf("%s %+v: got %q, want %q", name, tt.filter, keys, tt.want)
			}
		}
	}
}

// Operations that change letters require a selection: an empty filter does not mean "all".
func TestNothingChosen(t *testing.T) {
	w := letters()
	for _, name := range []string{"dlq show", "dlq redrive"} {
		_, err := do[letterResult](t, Local(w.operator()), name, nil)
		wantError(t, err, "no object is chosen: name keys, or set --code, --reason, --pipeline or --all", "%s", name)
	}
	_, err := do[letterResult](t, Local(w.operator()), "dlq drop", func(p any) { p.(*dropParams).Yes = true })
	wantError(t, err, "no object is chosen", "dlq drop")
	if len(w.enqueued)+len(w.forgotten) > 0 || w.loads[key(0)].State != pipeline.Dead {
		t.Errorf("something was changed: %q %q", w.enqueued, w.forgotten)
	}
}

func TestShowLetters(t *testing.T) {
	w := letters()
	w.kept = []clickhouse.Kept{{ID: "i", Object: key(0), Code: "object_damaged", Message: "sum differs"}}
	delete(w.objects, key(1))
	got, err := do[letterDetail](t, Local(w.operator()), "dlq show", func(p any) { p.(*letterFilter).All = true })
	if err != nil || len(got) != 3 {
		t.Fatalf("%d letters, %v", len(got), err)
	}
	if d := got[0]; d.Object == nil || d.Object.State != "dead" || len(d.Failures) != 1 ||
		d.Token != key(0)+"@e/events/0" {
		t.Errorf("got %+v", d)
	}
	var text bytes.Buffer
	for i, want := range []string{
		"key       " + key(0) + "\nstate     dead\ncode      object_damaged\nreason    reason object_damaged\n" +
			"attempts  4, of which 3 failed because of the object\n",
		"object    not in the bucket any more\n",
	} {
		text.Reset()
		if err := printLetter(&text, &got[i]); err != nil || !strings.Contains(text.String(), want) {
			t.Errorf("printed\n%s, want\n%s", &text, want)
		}
	}
}

// First the ledger records that an object is to be loaded, then the queue gets it, and last the letter is removed.
func TestRedriveLetters(t *testing.T) {
	w := letters()
	got, err := do[letterResult](t, Local(w.operator()), "dlq redrive",
		func(p any) { p.(*letterChoice).Keys = []string{key(0)} })
	if err != nil || len(got) != 1 || got[0] != (letterResult{key(0), "redriven", "dead"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if l := w.loads[key(0)]; l.State != pipeline.Failed || l.Failures != 0 || l.Attempts != 5 ||
		l.Code != "object_damaged" {
		t.Errorf("the ledger has %+v", l)
	}
	if !slices.Equal(w.enqueued, []string{key(0) + " again"}) || !slices.Equal(w.forgotten, []string{key(0)}) {
		t.Errorf("enqueued %q, forgotten %q", w.enqueued, w.forgotten)
	}
	// Without a queue, only the ledger records it, because loaders sweep.
	w = letters()
	w.noQueue = true
	if _, err := do[letterResult](t, Local(w.operator()), "dlq redrive",
		func(p any) { p.(*letterChoice).All = true }); err != nil {
		t.Error(err)
	}
	if w.loads[key(1)].State != pipeline.Failed || len(w.enqueued) > 0 {
		t.Errorf("%+v, %q", w.loads[key(1)], w.enqueued)
	}
	// If a mended object had rows of its damaged content, these are replaced. Otherwise its rows stay in their generation.
	w = letters()
	for i, etag := range []string{"damaged", "e"} {
		w.load(key(i), pipeline.Dead, func(l *pipeline.Load) { l.ETag, l.ChunkRows, l.Refused = etag, 9, []uint32{1} })
	}
	if _, err := do[letterResult](t, Local(w.operator()), "dlq redrive",
		func(p any) { p.(*letterChoice).All = true }); err != nil {
		t.Error(err)
	}
	if l := w.loads[key(0)]; l.Generation != 1 || l.ETag != "e" || l.ChunkRows != 0 || l.Refused != nil {
		t.Errorf("mended: %+v", l)
	}
	if l := w.loads[key(1)]; l.Generation != 0 || l.ChunkRows != 9 || len(l.Refused) != 1 {
		t.Errorf("the same content: %+v", l)
	}
	// If the queue is unreachable, nothing is changed.
	w = letters()
	w.away["queue"] = errAway
	_, err = do[letterResult](t, Local(w.operator()), "dlq redrive", func(p any) { p.(*letterChoice).All = true })
	wantError(t, err, "connection refused", "redrive")
	if w.loads[key(0)].State != pipeline.Dead {
		t.Errorf("the ledger has %+v", w.loads[key(0)])
	}
}

func TestDropLetters(t *testing.T) {
	w := letters()
	drop := func(p dropParams) error {
		_, err := do[letterResult](t, Local(w.operator()), "dlq drop", func(params any) { *params.(*dropParams) = p })
		return err
	}
	named := letterFilter{Keys: []string{key(0)}}
	wantError(t, drop(dropParams{letterFilter: named}), "the objects will never be loaded: set --yes to confirm", "without yes")
	if err := drop(dropParams{letterFilter: named, Yes: true, Why: "a test wrote it"}); err != nil {
		t.Fatal(err)
	}
	l := w.loads[key(0)]
	if l.State != pipeline.Dropped || l.Error != "dropped: a test wrote it (was: reason object_damaged)" {
		t.Errorf("the ledger has %+v", l)
	}
	if !slices.Equal(w.forgotten, []string{key(0)}) || len(w.enqueued) > 0 {
		t.Errorf("enqueued %q, forgotten %q", w.enqueued, w.forgotten)
	}
}

// The command lists the letters to drop. After a yes it drops exactly these.
func TestConfirmDrop(t *testing.T) {
	w := letters()
	for _, tt := range []struct {
		params dropParams
		answer string
		want   string // part of the error
		keys   []string
	}{
		{dropParams{letterFilter: letterFilter{Code: "killed"}}, "yes\n", "", []string{key(1)}},
		{dropParams{letterFilter: letterFilter{All: true}}, "yes", "", []string{key(0), key(1), errorsKey}},
		{dropParams{letterFilter: letterFilter{All: true}}, "y\n", "nothing was dropped", nil},
		{dropParams{letterFilter: letterFilter{All: true}}, "", "nothing was dropped", nil},
		{dropParams{letterFilter: letterFilter{Code: "none"}}, "", "there is nothing to drop", nil},
		{dropParams{}, "yes\n", "no object is chosen", nil},
		{dropParams{letterFilter: letterFilter{Keys: []string{"x"}}, Yes: true}, "", "", []string{"x"}},
	} {
		p := tt.params
		var asked bytes.Buffer
		err := ConfirmDrop(t.Context(), Local(w.operator()), &p, strings.NewReader(tt.answer), &asked)
		wantError(t, err, tt.want, "%+v, answer %q", tt.params, tt.answer)
		if err == nil && (!slices.Equal(p.Keys, tt.keys) || !p.Yes) {
			t.Errorf("%+v, answer %q: %+v is dropped, want %q", tt.params, tt.answer, p, tt.keys)
		}
		if tt.answer == "yes" && (!strings.Contains(asked.String(), "This drops 3 objects: ") ||
			!strings.Contains(asked.String(), key(0))) {
			t.Errorf("asked %s", &asked)
		}
	}
}

func TestRebuildLetters(t *testing.T) {
	w := letters()
	w.letters = make([]pipeline.DeadLetter, 7)
	o := w.operator()
	var got any
	op := Find("dlq rebuild")
	run := func() error {
		return op.run(context.Background(), o, op.NewParams(), sink{item: func(item any) error { got = item; return nil }})
	}
	if err := run(); err != nil || len(w.letters) != 3 {
		t.Errorf("%d letters, %v", len(w.letters), err)
	}
	if want := (rebuilt{7, 3}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	w.letters = w.letters[:1]
	want := "3 dead letters in the stream; there were 1\n"
	if got, err := command(t, o, "dlq rebuild"); err != nil || got != want {
		t.Errorf("the command prints %q, %v, want %q", got, err, want)
	}
	w.noQueue = true
	wantError(t, run(), "no queue keeps dead letters", "without a queue")
}

// Failing objects are shown, retried and dropped like dead letters, by key or with --failing.
func TestFailingObjects(t *testing.T) {
	failing := func(l *pipeline.Load) { l.Failures, l.Attempts, l.Error = 6, 6, "it is damaged" }
	w := letters()
	w.load(key(7), pipeline.Failed, failing)
	w.load(key(8), pipeline.Failed, failing)
	o := w.operator()
	list := func(f letterFilter) (keys []string) {
		t.Helper()
		got, err := do[pipeline.DeadLetter](t, Local(o), "dlq list", func(p any) { *p.(*letterFilter) = f })
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range got {
			keys = append(keys, d.State+" "+d.Key)
		}
		return keys
	}
	if diff := cmp.Diff([]string{"failed " + key(7), "failed " + key(8)}, list(letterFilter{Failing: true})); diff != "" {
		t.Errorf("--failing (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"failed " + key(7)}, list(letterFilter{Keys: []string{key(7)}})); diff != "" {
		t.Errorf("by its key (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		f    letterFilter
		want string
	}{
		{letterFilter{Failing: true}, "2 failing objects\n"}, {letterFilter{Keys: []string{key(7)}}, "1 failing object\n"},
		{letterFilter{Failing: true, Code: "other"}, "0 failing objects\n"}, {letterFilter{Code: "other"}, "0 dead letters\n"},
		{letterFilter{Keys: []string{key(0), key(7), key(8)}}, "1 dead letter and 2 failing objects\n"},
	} {
		var out bytes.Buffer
		if err := printed(t, o, "dlq list", &tt.f, &out); err != nil || !strings.HasSuffix(out.String(), tt.want) {
			t.Errorf("%+v printed, with %v,\n%s, want %s", tt.f, err, &out, tt.want)
		}
	}
	got, err := do[letterResult](t, Local(o), "dlq redrive", func(p any) { p.(*letterChoice).Keys = []string{key(7)} })
	if l := w.loads[key(7)]; err != nil || len(got) != 1 || l.State != pipeline.Failed || l.Failures != 0 ||
		!slices.Contains(w.enqueued, key(7)+" again") {
		t.Errorf("redriven: %v, %v, %+v, enqueued %v", got, err, l, w.enqueued)
	}
	drop := dropParams{letterFilter: letterFilter{Failing: true, Code: w.loads[key(8)].Code}, Why: "it is no object", Yes: true}
	drop.Keys = []string{key(8)}
	if _, err := do[letterResult](t, Local(o), "dlq drop", func(p any) { *p.(*dropParams) = drop }); err != nil {
		t.Fatal(err)
	}
	// An attempt that was running meanwhile, and failed, does not undo it.
	late := w.loads[key(8)]
	late.State, late.Attempts = pipeline.Failed, 7
	if err := (table{w}).SaveLoad(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if l := w.loads[key(8)]; l.State != pipeline.Dropped || !strings.Contains(l.Error, "it is no object") {
		t.Errorf("dropped: %+v", l)
	}
}
