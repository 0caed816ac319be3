package loader

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

var (
	states     = []state{unknown, begun, ended, failed, dead, dropped, loaded}
	stateNames = map[state]string{unknown: "unknown", begun: "begun", ended: "ended", failed: "failed", dead: "dead",
		dropped: "dropped", loaded: "loaded"}
	actionNames = map[action]string{leave: "leave", tidy: "tidy", bury: "bury", load: "load", reload: "reload",
		save: "save"}
)

// in returns an entry in a state. This loader made the last attempt, under the job "old".
func in(s state) (e pipeline.Load, known bool) {
	e = pipeline.Load{Key: "k", ETag: "e", Pipeline: "events"}
	if s == unknown {
		return e, false
	}
	e.Generation, e.Attempts, e.Failures, e.ChunkRows, e.Job, e.Loader = 2, 5, 1, 10, "old", "me"
	e.FirstFail = pipeline.Millis(noon - 1000)
	e.State = map[state]pipeline.LoadState{begun: pipeline.Loading, ended: pipeline.Loading, failed: pipeline.Failed,
		dead: pipeline.Dead, dropped: pipeline.Dropped, loaded: pipeline.Loaded}[s]
	if s != begun {
		e.Finished = pipeline.Millis(noon)
	}
	return e, true
}

// Every state with every event. A cell is the next state and the action.
func TestTransitions(t *testing.T) {
	own, final := errors.New("damaged"), faultFinal("no_valid_rows", "none")
	for _, c := range []struct {
		name  string
		h     happening
		rules rules
		want  [7]string // by state: unknown, begun, ended, failed, dead, dropped, loaded
	}{
		{"notified", happening{event: notified}, rules{},
			[7]string{"unknown load", "begun load", "ended load", "failed load", "dead bury", "dropped leave", "loaded tidy"}},
		{"assigned", happening{event: assigned}, rules{},
			[7]string{"unknown load", "begun load", "ended load", "failed load", "dead bury", "dropped leave", "loaded tidy"}},
		{"requested", happening{event: requested}, rules{},
			[7]string{"unknown load", "begun load", "ended load", "failed load", "failed reload", "failed reload",
				"loaded leave"}},
		{"missed", happening{event: missed}, rules{}, every("failed reload")},
		{"replaced by a new job", happening{event: replaced, job: "new"}, rules{}, every("failed reload")},
		{"replaced by the same job", happening{event: replaced, job: "old"}, rules{},
			[7]string{"failed reload", "failed reload", "failed reload", "failed reload", "failed reload", "failed reload",
				"loaded leave"}},
		{"started", happening{event: started}, rules{}, every("begun save")},
		{"finished", happening{event: finished}, rules{}, every("loaded save")},
		{"failed, with attempts left", happening{event: faulted, cause: own}, rules{attempts: 5}, every("failed save")},
		{"failed, for the last time", happening{event: faulted, cause: own}, rules{attempts: 1}, every("dead bury")},
		{"failed for good", happening{event: faulted, cause: final}, rules{attempts: 5}, every("dead bury")},
		{"interrupted", happening{event: interrupted}, rules{loader: "me"},
			[7]string{"unknown leave", "ended save", "ended leave", "failed leave", "dead leave", "dropped leave",
				"loaded leave"}},
		{"interrupted, by another loader", happening{event: interrupted}, rules{loader: "you"},
			[7]string{"unknown leave", "begun leave", "ended leave", "failed leave", "dead leave", "dropped leave",
				"loaded leave"}},
	} {
		for i, s := range states {
			e, known := in(s)
			h := c.h
			h.at = pipeline.Millis(noon + 1)
			next, do := c.rules.next(e, known, h)
			after := stateOf(next, known || do == save || do == reload || c.h.event == faulted)
			if got := stateNames[after] + " " + actionNames[do]; got != c.want[i] {
				t.Errorf("%s, %s: %s, want %s", stateNames[s], c.name, got, c.want[i])
			}
			if next.Attempts < e.Attempts || next.Generation < e.Generation || next.Key != "k" || next.Pipeline != "events" {
				t.Errorf("%s, %s: %+v, before %+v", stateNames[s], c.name, next, e)
			}
			// The ledger keeps the entry with the highest version. Only an attempt that ends late may be hidden, by a faster
			// loader's.
			late := s == loaded || s == dead || s == dropped
			if do == reload && next.Version() <= e.Version() || do == save && !late && next.Version() < e.Version() {
				t.Errorf("%s, %s: version %d is hidden by %d", stateNames[s], c.name, next.Version(), e.Version())
			}
		}
	}
}

func every(want string) (all [7]string) {
	for i := range all {
		all[i] = want
	}
	return all
}

// What an event changes in the entry besides the state.
func TestTransitionsWrite(t *testing.T) {
	at := pipeline.Millis(noon + 1)
	r := rules{loader: "me", attempts: 3, unfinished: 5}
	for _, c := range []struct {
		name   string
		from   state
		h      happening
		before func(*pipeline.Load)
		want   string // as line prints it
	}{
		{"a killed loader counts", begun, happening{event: notified}, nil,
			"attempts 5, failures 1, unfinished 1, generation 2"},
		{"and an operator sees it as well", begun, happening{event: requested}, nil,
			"attempts 5, failures 1, unfinished 1, generation 2"},
		{"but not the process that does it alone", begun, happening{event: assigned}, nil,
			"attempts 5, failures 1, unfinished 0, generation 2"},
		{"an ended attempt does not", ended, happening{event: notified}, nil,
			"attempts 5, failures 1, unfinished 0, generation 2"},
		{"begin", failed, happening{event: started}, nil, "attempts 6, failures 1, unfinished 0, generation 2, by me"},
		{"a drain forgets killed loaders", begun, happening{event: interrupted}, func(e *pipeline.Load) { e.Unfinished = 3 },
			"attempts 5, failures 1, unfinished 0, generation 2, ended"},
		{"so does a failure", begun, happening{event: faulted, cause: errors.New("x")},
			func(e *pipeline.Load) { e.Unfinished = 3 },
			"attempts 5, failures 2, unfinished 0, generation 2, ended, first failure -1s, load_failed: x"},
		{"but not if the loader was killed", begun, happening{event: faulted, cause: faultFinal(codeKilledLoader, "x")},
			func(e *pipeline.Load) { e.Unfinished = 5 },
			"attempts 5, failures 2, unfinished 5, generation 2, ended, first failure -1s, killed_loader: x"},
		{"the first failure since a redrive", begun, happening{event: faulted, cause: errors.New("x")},
			func(e *pipeline.Load) { e.Failures = 0 },
			"attempts 5, failures 1, unfinished 0, generation 2, ended, first failure 1ms, load_failed: x"},
		{"redriven", dead, happening{event: requested}, func(e *pipeline.Load) { e.Failures = 3 },
			"attempts 6, failures 0, unfinished 0, generation 2, cut"},
		{"replaced", loaded, happening{event: replaced, job: "new"}, func(e *pipeline.Load) { e.Unfinished = 1 },
			"attempts 6, failures 0, unfinished 1, generation 3, job new"},
		{"its rows are lost", loaded, happening{event: missed}, nil, "attempts 6, failures 0, unfinished 0, generation 3"},
		{"loaded", begun, happening{event: finished, rows: outcome{rows: 7, newest: noon}},
			func(e *pipeline.Load) { e.Unfinished = 1 },
			"attempts 5, failures 1, unfinished 0, generation 2, ended, 7 rows to 0s"},
	} {
		e, known := in(c.from)
		if c.before != nil {
			c.before(&e)
		}
		c.h.at = at
		next, _ := r.next(e, known, c.h)
		if got := line(e, next, at); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

// line describes how an entry differs from the one before it.
func line(before, e pipeline.Load, at time.Time) string {
	s := fmt.Sprintf("attempts %d, failures %d, unfinished %d, generation %d", e.Attempts, e.Failures, e.Unfinished,
		e.Generation)
	if e.Started.Equal(at) {
		s += ", by " + e.Loader
	}
	if e.Finished.Equal(at) {
		s += ", ended"
	}
	if e.Code != "" {
		s += fmt.Sprintf(", first failure %s, %s: %s", e.FirstFail.Sub(pipeline.Millis(noon)), e.Code, e.Error)
	}
	if e.Rows > 0 {
		s += fmt.Sprintf(", %d rows to %s", e.Rows, e.Received.Sub(pipeline.Millis(noon)))
	}
	if before.Failures != 0 && e.Failures == 0 && e.ChunkRows > 0 {
		s += ", cut"
	}
	if e.Job != before.Job && e.Job != "" {
		s += ", job " + e.Job
	}
	return s
}

// An object is loaded alone after Options.Unfinished attempts without an end.
func TestAloneAfterUnfinished(t *testing.T) {
	r := rules{loader: "me", attempts: 3, unfinished: 3}
	e, known := in(failed)
	var alone []int
	for attempt := range 5 {
		e, _ = r.next(e, known, happening{event: notified})
		if r.alone(e) {
			alone = append(alone, attempt)
		}
		e, _ = r.next(e, known, happening{event: started, at: pipeline.Millis(noon)}) // and killed
	}
	if !slices.Equal(alone, []int{3, 4}) {
		t.Errorf("attempts %v are alone, want those from the fourth on", alone)
	}
}
