package tenant

import (
	"fmt"
	"testing"
)

func TestNames(t *testing.T) {
	tenant := newTenant(Project{Names: []string{"level_up", "llm_*", "*_end", "a*b*c", "x**y"}}, 0)
	for name, want := range map[string]bool{
		"level_up": true, "level_u": false, "level_upp": false, "llm_": true, "llm_call": true, "llm": false,
		"game_end": true,
		"_end":     true, "ende": false, "abc": true, "a1b2c": true, "acb": false, "ac": false, "abbc": true, "xy": true,
		"x/y": true,
		"x":   false, "": false, "*": false,
	} {
		if got := tenant.Accepts([]byte(name)); got != want {
			t.Errorf("%q: accepted %v, want %v", name, got, want)
		}
	}
	if all := newTenant(Project{}, 0); !all.Accepts([]byte("anything")) {
		t.Error("a project without names rejects an event")
	}
}

func TestSampleGoesBy(t *testing.T) {
	in, out := halves()
	for _, c := range []struct {
		by, session, user, id string
		out                   bool
	}{
		{BySession, in, out, out, false}, {BySession, out, in, in, true}, {BySession, "", in, out, false},
		{BySession, "", "", out, true},
		{ByUser, out, in, out, false}, {ByUser, in, out, in, true}, {ByUser, in, "", out, true},
		{ByEvent, out, out, in, false}, {ByEvent, in, in, out, true},
	} {
		tenant := newTenant(Project{Sample: &Sample{By: c.by, Keep: 0.5, Names: []string{"pos*"}}}, 0)
		if got := tenant.SampledOut([]byte("position"), []byte(c.id), []byte(c.session), []byte(c.user)); got != c.out {
			t.Errorf("%+v: left out %v, want %v", c, got, c.out)
		}
		if tenant.SampledOut([]byte("other"), []byte(c.id), []byte(c.session), []byte(c.user)) {
			t.Errorf("%+v: an event with another name is left out", c)
		}
	}
}

// halves are texts that a sample of a half keeps and leaves out.
func halves() (in, out string) {
	for i := 0; in == "" || out == ""; i++ {
		if text := fmt.Sprint("x", i); spot([]byte(text)) < 0.5 {
			in = text
		} else {
			out = text
		}
	}
	return in, out
}

// Receivers of different releases agree on a sample, so these places never change.
func TestSpotStays(t *testing.T) {
	for text, want := range map[string]string{"": "0.936769", "s-1": "0.786862", "user@example.com": "0.597184"} {
		if got := fmt.Sprintf("%.6f", spot([]byte(text))); got != want {
			t.Errorf("%q is at %s, want %s", text, got, want)
		}
	}
}
