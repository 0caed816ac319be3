package llm

import (
	"os"
	"strings"
	"testing"
)

// Each name is there once for a field, and has a source.
func TestNames(t *testing.T) {
	type place struct {
		field Field
		path  string
	}
	seen := map[place]bool{}
	check := func(field Field, path string, from Source) {
		t.Helper()
		if seen[place{field, path}] {
			t.Errorf("%s is there twice for %s", path, field)
		}
		seen[place{field, path}] = true
		if from == "" || path == "" || strings.ContainsAny(path, "'`\\ ") {
			t.Errorf("%q of %s has the source %q", path, field, from)
		}
	}
	for _, n := range Names {
		check(n.Field, n.Path, n.From)
	}
	for _, m := range Members {
		check("member of "+m.Count, m.Path, m.From)
	}
	for _, r := range Renamed {
		for _, a := range r.Before {
			check("renamed", a.Name, a.From)
			if at := Renames[a.Name]; Renamed[at.Now].Now != r.Now || Renamed[at.Now].Before[at.Rank-1] != a {
				t.Errorf("%s is found at %+v", a.Name, at)
			}
		}
		if at, known := Renames[r.Now]; !known || at.Rank != 0 {
			t.Errorf("%s is found at %+v", r.Now, at)
		}
	}
}

// The view reads what the receiver writes: a name of now, unless it says who and when.
func TestNamesOfNowAreRead(t *testing.T) {
	read := map[string]bool{}
	for _, n := range Names {
		read[n.Path] = true
	}
	for _, r := range Renamed {
		if !read[r.Now] {
			t.Errorf("the receiver writes %s, and the view does not read it", r.Now)
		}
		for _, a := range r.Before {
			if read[a.Name] && a.Name != "gen_ai.system" { // which older rows and native events have
				t.Errorf("the view reads %s, which the receiver renames to %s", a.Name, r.Now)
			}
		}
	}
}

// docs/guides/llm.md lists all names.
func TestNamesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/guides/llm.md")
	if err != nil {
		t.Fatal(err)
	}
	missing := func(name string) {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/guides/llm.md does not name %s", name)
		}
	}
	for _, n := range Names {
		missing(n.Path)
	}
	for _, m := range Members {
		missing(m.Path)
	}
	for _, r := range Renamed {
		missing(r.Now)
		for _, a := range r.Before {
			missing(a.Name)
		}
	}
	for _, d := range Details {
		missing(d.Path)
		missing(d.Key)
	}
	for _, word := range Calls {
		missing(word)
	}
}
