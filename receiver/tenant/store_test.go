package tenant

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/penstock/penstock/receiver/errcode"
)

func newStore(fixed ...Key) *Store[string] {
	return NewStore(fixed, func(p *Project) (string, error) {
		if len(p.Drop) > 0 && p.Drop[0] == "bad" {
			return "", errors.New("the path \"bad\"")
		}
		return "edits of " + p.Name, nil
	})
}

func key(project, name string) Key { return Key{Project: project, Name: name, Hash: HashKey(name)} }

func TestFind(t *testing.T) {
	now := time.Date(2026, 11, 22, 3, 45, 0, 0, time.UTC)
	old, next := key("game", "old"), key("game", "next")
	old.Expires, next.Expires = now, now.Add(time.Millisecond)
	s := newStore(key("fixed", "fixed"))
	if err := s.Replace([]Project{{Name: "game", Names: []string{"a"}}}, []Key{old, next}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key, edits string
		code       errcode.Code
	}{
		{"fixed", "", 0}, {"next", "edits of game", 0}, {"old", "edits of game", errcode.ExpiredKey},
		{"none", "", errcode.UnknownKey},
	} {
		g, err := s.Find(c.key, now.UnixMilli())
		var code errcode.Code
		if err != nil {
			code = err.Code
		}
		var edits string
		if g.Tenant != nil {
			edits = g.Tenant.Edits
		}
		if code != c.code || edits != c.edits {
			t.Errorf("%s: code %s and edits %q, want %s and %q", c.key, code, edits, c.code, c.edits)
		}
		if got, want := s.Known(c.key), c.code != errcode.UnknownKey; got != want {
			t.Errorf("%s: known %v, want %v", c.key, got, want)
		}
	}
	if s.Keys() != 3 || s.Project("game") == nil || s.Project("fixed") != nil {
		t.Errorf("%d keys, projects game %v, fixed %v", s.Keys(), s.Project("game"), s.Project("fixed"))
	}
}

// An unusable file replaces nothing.
func TestReplaceAllOrNothing(t *testing.T) {
	s := newStore(key("fixed", "fixed"))
	if err := s.Replace([]Project{{Name: "a"}}, []Key{key("a", "first")}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		projects []Project
		keys     []Key
		want     string
	}{
		{nil, []Key{key("a", "x"), {Project: "b", Name: "y", Hash: HashKey("x")}}, `"x" of a`},
		{nil, []Key{key("a", "fixed")}, `"fixed" of fixed`},
		{[]Project{{Name: "c", Drop: []string{"bad"}}}, nil, `project c: the path "bad"`},
	} {
		if err := s.Replace(c.projects, c.keys); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q in it", c, err, c.want)
		}
		if !s.Known("first") || s.Known("x") || s.Project("a") == nil || s.Project("c") != nil {
			t.Errorf("%+v changed what is in force", c)
		}
	}
	if err := s.Replace(nil, nil); err != nil || s.Known("first") || !s.Known("fixed") {
		t.Errorf("emptied: error %v, first known %v, fixed known %v", err, s.Known("first"), s.Known("fixed"))
	}
}

func TestUsage(t *testing.T) {
	s := newStore()
	if err := s.Replace([]Project{{Name: "a", Quota: Quota{Events: 100}}, {Name: "b"}}, nil); err != nil {
		t.Fatal(err)
	}
	a := s.Project("a").Open("")
	a.Use(7, 70, time.Now())
	b := s.Project("b").Open("")
	b.Use(7, 70, time.Now())
	got := s.Usage()
	if want := (map[string]Used{"a": {Events: 7, Bytes: 70}}); !reflect.DeepEqual(got.Projects, want) {
		t.Errorf("got %v, want %v", got.Projects, want)
	}
	next := newStore()
	next.SetUsage(got)
	if again := next.Usage(); !reflect.DeepEqual(again, got) {
		t.Errorf("a second receiver has %v, want %v", again, got)
	}
	got.Day = "2026-01-01"
	next.SetUsage(got)
	if old := next.Usage(); len(old.Projects) != 0 {
		t.Errorf("usage of another day counts: %v", old)
	}
}

// Requests read keys while others replace them.
func TestReadWhileReplaced(t *testing.T) {
	s := newStore(key("fixed", "fixed"))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				if g, err := s.Find("fixed", 0); err != nil || g.Project != "fixed" {
					t.Errorf("%+v, %v", g.Key, err)
				}
			}
		})
	}
	for i := range 100 {
		if err := s.Replace([]Project{{Name: "fixed", Quota: Quota{Events: int64(i)}}}, nil); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
