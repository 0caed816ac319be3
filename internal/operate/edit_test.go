package operate

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/tenant"
)

// --edit replaces text in matching payloads. Others are sent unchanged.
func TestEdit(t *testing.T) {
	w := newWorld()
	w.keep(1)
	w.keep(2, func(k *clickhouse.Kept) { k.Raw = `{"evt":"start","evt2":1}` })
	o := w.operator()
	p := func() *errorRedrive {
		return &errorRedrive{errorFilter: errorFilter{Since: "2026-11-22", Until: "now"}, All: true, Edit: `s/"(evt)":/"name":/`}
	}
	dry := p()
	dry.DryRun = true
	var out bytes.Buffer
	if err := printed(t, o, "errors redrive", dry, &out); err != nil || len(w.redriven) > 0 ||
		!strings.Contains(out.String(), `would be sent as {"name":"start","evt2":1}`) ||
		!strings.Contains(out.String(), `would not be edited: {"a":1}`) ||
		!strings.Contains(out.String(), "Dry run: nothing was sent. 2 failures would be tried.") {
		t.Errorf("dry run: %v, printed\n%s", err, &out)
	}
	if err := printed(t, o, "errors redrive", p(), &out); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, r := range w.redriven {
		got[string(r.Body)] = true
	}
	if diff := cmp.Diff(map[string]bool{`{"a":1}`: true, `{"name":"start","evt2":1}`: true}, got); diff != "" {
		t.Errorf("sent (-want +got):\n%s", diff)
	}
	for _, wrong := range []string{"s", "x/a/b/", "s/a/b", "s//b/", "s/a/b/g", "s/(/b/"} {
		if _, err := parseEdit(wrong); !isUsage(err) {
			t.Errorf("%q: got %v, want an error", wrong, err)
		}
	}
	if e, err := parseEdit("s|a/(b)|$1|"); err != nil {
		t.Error(err)
	} else if body, ok := e.apply([]byte("a/b")); !ok || string(body) != "b" {
		t.Errorf("got %q", body)
	}
}

// errors count groups similar failures.
func TestCountErrors(t *testing.T) {
	w := newWorld()
	for i := range 3 {
		w.keep(i)
	}
	w.keep(4, func(k *clickhouse.Kept) { k.Code = "missing_name" })
	var out bytes.Buffer
	err := printed(t, w.operator(), "errors count", &errorFilter{Since: "2026-11-22", Until: "now"}, &out)
	if lines := strings.Split(out.String(), "\n"); err != nil || len(lines) != 4 ||
		!strings.HasPrefix(strings.Join(strings.Fields(lines[2]), " "), "3 3 invalid_json receiver p -") {
		t.Errorf("%v, printed\n%s", err, &out)
	}
}

// projects sums the receivers' counts.
func TestProjects(t *testing.T) {
	w := newWorld()
	o := w.operator()
	wantError(t, printed(t, o, "projects", &struct{}{}, &bytes.Buffer{}), "receiver.projects is empty", "without a file")
	o.Config.Receiver.Projects = filepath.Join(t.TempDir(), "projects.yaml")
	if err := os.WriteFile(o.Config.Receiver.Projects, []byte(`projects:
  game:
    rate: {events: 5000/s}
    quota: {events: 1000, bytes: 1MiB}
    drop: [properties.email]
    names: [start]
  shop: {}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	st := RoleStatus{Role: "receive", Usage: &tenant.Usage{Projects: map[string]tenant.Used{"game": {Events: 7, Bytes: 2048},
		"gone": {Events: 1}}}, Redacted: []receiver.Redacted{{Project: "game", Path: "properties.email", Done: "drop", Count: 3},
		{Project: "gone", Path: "properties.email", Done: "drop", Count: 9}}}
	o.Config.Status.Admins = []string{role(t, st), role(t, st)}
	var out bytes.Buffer
	if err := printed(t, o, "projects", &struct{}{}, &out); err != nil {
		t.Fatal(err)
	}
	want := []string{"PROJECT KEYS EVENTS TODAY QUOTA BYTES TODAY QUOTA EVENTS/S BYTES/S DROPPED AND HASHED",
		"game 0 14 1000 4.0 KiB 1.0 MiB 5000 - drop properties.email 6", "shop 0 - - - - - - -", "2 projects"}
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		got := strings.Join(strings.Fields(line), " ")
		if i >= len(want) || strings.ReplaceAll(got, ".0 ", " ") != strings.ReplaceAll(want[i], ".0 ", " ") {
			t.Errorf("line %d is %q", i, got)
		}
	}
	o.Config.Status.Admins = []string{"http://127.0.0.1:1"}
	wantError(t, printed(t, o, "projects", &struct{}{}, &bytes.Buffer{}), "the used quota is incomplete", "away")
}
