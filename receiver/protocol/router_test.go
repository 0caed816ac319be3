package protocol

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestRouter(t *testing.T) {
	isBinary := func(head http.Header) bool { return head.Get("Content-Type") == "binary" }
	r, err := NewRouter(
		[]*Route{{Name: "binary", Paths: []string{"/v1/events"}, Match: isBinary}},
		[]*Route{{Name: "native", Paths: []string{"/v1/events"}}, {Name: "game", Paths: []string{"/v2/{}/events"}},
			{Name: "config", Paths: []string{"/v1/projects/{}/settings"}, EventHeaders: []string{"Ce-", "X-One"}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ path, kind, want, keyless string }{
		{"/v1/events", "", "native", "/v1/events"},
		{"/v1/events/", "", "native", "/v1/events/"},
		{"/v1/events", "binary", "binary", "/v1/events"},
		{"/v2/secret/events", "", "game", "/v2/{}/events"},
		{"/v2/secret/events/", "", "game", "/v2/{}/events/"},
		{"/v1/projects/secret/settings", "", "config", "/v1/projects/{}/settings"},
		{"/v2//events", "", "game", "/v2/{}/events"},
		{"/v2/a/b/events", "", "", "/v2/a/b/events"},
		{"/v3/events", "", "", "/v3/events"},
		{"/", "", "", "/"},
		{"", "", "", ""},
	} {
		got := ""
		if route := r.Find(c.path, http.Header{"Content-Type": {c.kind}}); route != nil {
			got = route.Name
		}
		if keyless := r.Keyless(c.path); got != c.want || keyless != c.keyless {
			t.Errorf("%s %q: route %q, without its key %q, want %q and %q", c.path, c.kind, got, keyless, c.want, c.keyless)
		}
	}
	head := http.Header{"Ce-Id": nil, "Ce-": nil, "X-One": nil, "X-One-More": nil, "Authorization": nil}
	if got, want := strings.Join(r.EventHeaders(head), " "), "Ce-Id X-One"; got != want {
		t.Errorf("headers of events %q, want %q", got, want)
	}
	paths := r.Paths()
	slices.Sort(paths)
	if got, want := strings.Join(paths, " "), "/v1/events /v1/projects/{}/settings /v2/{}/events"; got != want {
		t.Errorf("paths %q, want %q", got, want)
	}
}

// An unreachable route is an error that names both routes and the path.
func TestRouterRefusesAPathTwice(t *testing.T) {
	any := func(http.Header) bool { return true }
	_, err := NewRouter([]*Route{{Name: "first", Paths: []string{"/other", "/track"}}},
		[]*Route{{Name: "second", Paths: []string{"/track"}, Match: any}})
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{`"first"`, `"second"`, "/track"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got error %q, want it to name %s", err, want)
		}
	}
}
