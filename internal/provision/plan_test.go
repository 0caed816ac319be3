package provision

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// record is a plan that keeps its steps.
func record(dry bool) (*Plan, *[]Step) {
	var steps []Step
	return &Plan{DryRun: dry, Print: func(s Step) { steps = append(steps, s) }}, &steps
}

// One change under each condition: what is done, printed and returned.
func TestMake(t *testing.T) {
	broken := errors.New("the server is away")
	denied := fmt.Errorf("create queue q: %w", Denied{errors.New("AccessDenied (status 403)")})
	byHand := Change{Subject: "queue", What: "created q", ByHand: "  aws sqs create-queue --queue-name q"}
	plain := Change{Subject: "bucket", What: "created b"}
	for name, tt := range map[string]struct {
		dry    bool
		change Change
		do     error
		done   bool
		steps  []Step
		err    error
		end    string // part of what Err returns; empty: nothing
	}{
		"a change": {false, byHand, nil, true, []Step{{"queue", OK, "created q"}}, nil, ""},
		"a dry run": {true, byHand, broken, false, []Step{{"queue", Would, "dry run: would have created q"}}, nil,
			""},
		"a server that is away": {false, byHand, broken, true, nil, broken, ""},
		"too few rights": {false, byHand, denied, true, []Step{{"queue", Notice, "not allowed, so it is still to be done: " +
			"created q: AccessDenied (status 403)\nby hand, with more rights:\n  aws sqs create-queue --queue-name q"}},
			nil, "setup may not change queue: make these changes by hand"},
		"too few rights, no command": {false, plain, denied, true, []Step{{"bucket", Notice,
			"not allowed, so it is still to be done: created b: AccessDenied (status 403)"}}, nil, "setup may not change bucket:"},
	} {
		plan, steps := record(tt.dry)
		done := false
		tt.change.Do = func() error { done = true; return tt.do }
		if err := plan.Make(tt.change); !errors.Is(err, tt.err) || (err != nil) != (tt.err != nil) {
			t.Errorf("%s: got error %v, want %v", name, err, tt.err)
		}
		if done != tt.done {
			t.Errorf("%s: the change was made: %t, want %t", name, done, tt.done)
		}
		if diff := cmp.Diff(tt.steps, *steps); diff != "" {
			t.Errorf("%s: steps (-want +got):\n%s", name, diff)
		}
		if err := plan.Err(); (err != nil) != (tt.end != "") || err != nil && !strings.Contains(err.Error(), tt.end) {
			t.Errorf("%s: at the end: got %v, want %q", name, err, tt.end)
		}
	}
}

// Err names each subject that was denied, in order, and a found thing or a warning is none of them.
func TestErr(t *testing.T) {
	plan, steps := record(false)
	plan.Found("bucket", "%s", "100%")
	plan.Warn("queue", "%s has a redrive policy", "q")
	for _, subject := range []string{"queue", "queue policy"} {
		if err := plan.Make(Change{Subject: subject, What: "changed it",
			Do: func() error { return Denied{errors.New("no")} }}); err != nil {
			t.Errorf("a denied change: got %v, want setup to go on", err)
		}
	}
	if err := plan.Err(); err == nil || !strings.Contains(err.Error(), "may not change queue, queue policy:") ||
		!strings.Contains(err.Error(), `run "penstock setup" again`) {
		t.Errorf("got %v, want both subjects and what to do", err)
	}
	want := []Step{{"bucket", OK, "100%"}, {"queue", Notice, "q has a redrive policy"}}
	if diff := cmp.Diff(want, (*steps)[:2]); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
}

// A nil plan, and one that prints nothing, make every change. Without a plan a denied change is an error.
func TestNoPlan(t *testing.T) {
	refused := Denied{errors.New("no")}
	for name, plan := range map[string]*Plan{"nil": nil, "silent": {}} {
		done := 0
		count := func(err error) func() error { return func() error { done++; return err } }
		plan.Found("bucket", "b")
		plan.Warn("bucket", "b")
		err := plan.Make(Change{Do: count(nil)})
		denied := plan.Make(Change{Subject: "queue", Do: count(refused)})
		if done != 2 || err != nil {
			t.Errorf("%s: %d changes made, %v; want 2", name, done, err)
		}
		if got, want := errors.Is(denied, refused), plan == nil; got != want {
			t.Errorf("%s: a denied change: got %v, want it as an error: %t", name, denied, want)
		}
		if got, want := plan.Err() != nil, plan != nil; got != want {
			t.Errorf("%s: at the end: got %v, want an error: %t", name, plan.Err(), want)
		}
	}
}
