package projects

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/testing/bubble"
	"github.com/penstock/penstock/receiver"
	"github.com/penstock/penstock/receiver/receivertest"
	"github.com/penstock/penstock/receiver/tenant"
)

var somehash = strings.Repeat("ab", 32)

// The file that the documentation shows is one that works.
func TestProjectsOfTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/guides/projects.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(text)
	cfg, err := Parse(example[1], map[string]string{"GAME_SECRET": "s3cret", "PENSTOCK_SALT": "0123456789abcdef"})
	if err != nil {
		t.Fatal(err)
	}
	projects, keys, err := cfg.Tenants()
	if err != nil || len(projects) != 1 || len(keys) != 1 || keys[0].Secret != "s3cret" || keys[0].Small ||
		keys[0].ReadOnly {
		t.Errorf("%+v %+v %v", projects, keys, err)
	}
}

func TestParseProjects(t *testing.T) {
	for _, tt := range []struct{ project, want string }{
		{"{kes: []}", "unknown field projects.p.kes (from line 2): did you mean keys?"},
		{"{keys: [{name: a, sha: x}]}", "unknown field projects.p.keys[0].sha (from line 2): known are name, sha256"},
		{"{keys: [{sha256: " + somehash + "}]}", "projects.p.keys[0].name is empty"},
		{"{keys: [{name: a, sha256: abc}]}", "projects.p.keys[0].sha256: want 64 hex digits"},
		{"{keys: [{name: a, sha256: " + somehash + "}, {name: a, sha256: " + strings.Repeat("cd", 32) + "}]}",
			`projects.p.keys[1].name "a" is that of another key`},
		{"{keys: [{name: a, sha256: " + somehash + ", scopes: [read]}]}", `scopes: "read" is none (known: write)`},
		{"{keys: [{name: a, sha256: " + somehash + ", min_durability: tape}]}",
			`min_durability "tape": memory, disk or object`},
		{"{keys: [{name: a, sha256: " + somehash + ", expires: soon}]}", `expires "soon": want a time`},
		{"{keys: [{name: a, sha256: " + somehash + ", secret: \"${NONE}\"}]}",
			"projects.p.keys[0].secret (from line 2): ${NONE} is not set in the environment"},
		{"{rate: {events: 100}}", `projects.p.rate.events "100" (from line 2): want a rate, as 5000/s`},
		{"{rate: {events: 1.5/s}}", `"1.5/s" (from line 2): want a rate`},
		{"{rate: {bytes: 10MB/s}}", `"10MB/s" (from line 2): want a rate`},
		{"{rate: {events: 10/d}}", `"10/d" (from line 2): want a rate`},
		{"{rate: {events: 10/s, burst: -1s}}", "projects.p.rate.burst -1s"},
		{"{quota: {events: -1}}", "projects.p.quota.events -1"},
		{"{rate: {event: 1/s}}", "unknown field projects.p.rate.event (from line 2): did you mean events?"},
		{"{sample: {by: session}}", "projects.p.sample.keep: want the part"},
		{"{sample: {keep: 10}}", "projects.p.sample.keep"},
		{"{sample: {keep: .nan}}", "projects.p.sample.keep"},
		{"{sample: {keep: 0.1, by: device}}", `projects.p.sample.by "device": session, user or event`},
		{"{sample: {kep: 0.1}}", "unknown field projects.p.sample.kep"},
		{"{drop: [email]}", `project p: the path "email": want properties.KEY`},
		{"{drop: [properties]}", `the path "properties": name what is below it`},
		{"{drop: [user_id.x]}", "nothing is below user_id"},
		{"{drop: [properties.a], hash: [properties.a], salt: 0123456789abcdef}", `the path "properties.a" stands twice`},
		{"{hash: [user_id]}", "projects.p.salt has 0 bytes: hash wants a secret of 16"},
		{"5", "projects.p (from line 2): want fields"},
	} {
		_, err := Parse([]byte("projects:\n  p: "+tt.project+"\n"), nil)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.project, err, tt.want)
		}
	}
	for text, want := range map[string]error{"": ErrEmpty, " \n\n": ErrEmpty, "# nothing yet\n": ErrEmpty,
		"---\n": ErrEmpty, "projects:\n": ErrEmpty,
		"projects: {}\n": nil, "projects: {game: {}}\n": nil, "projects: {game: {keys: []}}\n": nil} {
		if _, err := Parse([]byte(text), nil); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", text, err, want)
		}
	}
}

func TestRates(t *testing.T) {
	cfg, err := Parse([]byte(`projects:
  a: {rate: {events: 5000/s, bytes: 10MiB/s}, quota: {events: 7, bytes: 2GiB}}
  b: {rate: {events: 30/m, burst: 1m}}
  c: {rate: {events: 1 / h}}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	projects, _, err := cfg.Tenants()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range projects {
		want := map[string]tenant.Project{
			"a": {Name: "a", Events: tenant.Rate{PerSecond: 5000, Burst: 50_000},
				Bytes: tenant.Rate{PerSecond: 10 << 20, Burst: 100 << 20}, Quota: tenant.Quota{Events: 7, Bytes: 2 << 30}},
			"b": {Name: "b", Events: tenant.Rate{PerSecond: 0.5, Burst: 30}},
			"c": {Name: "c", Events: tenant.Rate{PerSecond: 1. / 3600, Burst: 1}},
		}[p.Name]
		if !reflect.DeepEqual(p, want) {
			t.Errorf("got %+v, want %+v", p, want)
		}
	}
}

// A file that is being written is not taken before it is whole, and one with
// nothing in it never: what was in force stays.
func TestProjectsWhileTheyAreWritten(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "projects.yaml")
		write := func(text string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		key := func(name string) string {
			return "projects: {" + name + ": {keys: [{name: ci, scopes: [], sha256: " + hashOf(name) + "}]}}\n"
		}
		log := slog.New(slog.DiscardHandler)
		r := newReceiver(t)
		for _, text := range []string{"", "# none\n"} {
			write(text)
			if _, err := Open(path, r, log, prometheus.NewRegistry()); !errors.Is(err, ErrEmpty) ||
				!strings.Contains(err.Error(), "penstock keys add PROJECT") {
				t.Errorf("%q: %v", text, err)
			}
		}
		write(key("first"))
		p, err := Open(path, r, log, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Watch(ctx, dir); close(done) }()
		time.Sleep(pollEvery / 2) // between its looks
		for _, step := range []struct {
			write, known string
			reads        [2]float64 // ok, invalid
		}{
			{"", "first", [2]float64{0, 0}},
			{"-", "first", [2]float64{0, 1}},
			{"-", "first", [2]float64{0, 1}},
			{"projects: {}\n", "first", [2]float64{0, 1}}, // half of what follows
			{key("second"), "first", [2]float64{0, 1}},
			{"-", "second", [2]float64{1, 1}},
			{"-", "second", [2]float64{1, 1}},
			{"projects: {}\n", "second", [2]float64{1, 1}},
			{"-", "", [2]float64{2, 1}},
		} {
			if step.write != "-" {
				write(step.write)
			}
			time.Sleep(pollEvery)
			known := ""
			for _, name := range []string{"first", "second"} {
				req := httptest.NewRequest(http.MethodPost, "/v1/events", nil)
				req.Header.Set("X-API-Key", name)
				w := httptest.NewRecorder()
				r.ServeHTTP(w, req)
				if w.Code == http.StatusForbidden {
					known += name
				}
			}
			reads := [2]float64{value(t, p.reads.WithLabelValues("ok")), value(t, p.reads.WithLabelValues("invalid"))}
			if known != step.known || reads != step.reads {
				t.Errorf("%q: %q is known, want %q; reads %v, want %v", step.write, known, step.known, reads, step.reads)
			}
			invalid := value(t, p.invalid)
			if invalid != step.reads[1]-min(step.reads[0], 1) {
				t.Errorf("%q: invalid is %v", step.write, invalid)
			}
			if named := strings.Contains(p.Problem(), path); named != (invalid == 1) || !named && p.Problem() != "" {
				t.Errorf("%q: invalid is %v, the problem %q", step.write, invalid, p.Problem())
			}
		}
		cancel()
		<-done
	})
}

// What is used of quotas is found again by the next receiver in the same folder.
func TestUsageIsKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "projects.yaml")
	if err := os.WriteFile(path, []byte("projects: {a: {quota: {events: 10}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *Watcher {
		log := slog.New(slog.DiscardHandler)
		r := newReceiver(t)
		p, err := Open(path, r, log, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	first := open()
	if kept := first.keepUsage(dir, nil); kept != nil {
		t.Errorf("nothing is used: %s", kept)
	}
	first.ReadUsage(dir) // there is none
	used := tenant.Usage{Day: time.Now().UTC().Format(time.DateOnly),
		Projects: map[string]tenant.Used{"a": {Events: 7, Bytes: 70}}}
	first.receiver.SetUsage(used)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	first.Watch(ctx, dir)
	next := open()
	next.ReadUsage(dir)
	if got := next.receiver.Usage(); !reflect.DeepEqual(got, used) {
		t.Errorf("got %+v, want %+v", got, used)
	}
	if err := os.WriteFile(filepath.Join(dir, usageName), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	next = open()
	next.ReadUsage(dir)
	if got := next.receiver.Usage(); len(got.Projects) != 0 {
		t.Errorf("got %+v", got)
	}
}

// unheard is where no failure is kept.
type unheard struct{}

func (unheard) Report(pipeline.Failure) {}
func (unheard) Drop(string)             {}

// value is that of a metric.
func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	m := all[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

func hashOf(key string) string {
	sum := tenant.HashKey(key)
	return hex.EncodeToString(sum[:])
}

// newReceiver makes a receiver to which nobody sends.
func newReceiver(t *testing.T) *receiver.Receiver {
	t.Helper()
	r, err := receiver.New(receivertest.Options(), nil, unheard{}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return r
}
