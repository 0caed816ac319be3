package receiver

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// counted are the values of a registry's counters that are not 0, by name and labels.
func counted(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "penstock_receiver_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if v := m.GetCounter().GetValue(); v != 0 {
				all[strings.Join(labels, " ")] = v
			}
		}
	}
	return all
}

// Requests, events and rejections are counted by project and protocol.
func TestCountsByProjectAndProtocol(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := &sink{}
	r := must(New(options(), s, s, slog.New(slog.DiscardHandler), reg))
	serve(t, r, withKey(post("/v1/events", `{"name":"a"}{"name":"b"}{"nme":"c"}`)))
	serve(t, r, post("/v1/events", `{"name":"a"}`, "Authorization", "Bearer "+keyDisk))
	send(r, "/v1/track", `{"event":"a","userId":"u"}`, "Authorization", "Bearer "+key)
	serve(t, r, withKey(post("/v1/events", `{"nme":"a"}`)))
	serve(t, r, withKey(post("/v1/events", ``)))
	serve(t, r, post("/v1/events", `{"name":"a"}`, "Authorization", "Bearer wrong"))
	serve(t, r, withKey(post("/nothing", `{"name":"a"}`)))
	for name, want := range map[string]map[string]float64{
		"events_total": {"game penstock": 2, "bank penstock": 1, "game segment": 1},
		"requests_total": {"game penstock 202": 1, "bank penstock 202": 1, "game segment 200": 1, "game penstock 400": 2,
			" penstock 401": 1, "  404": 1},
		// Labels are in the order of their names: code, project, protocol.
		"rejected_events_total": {"missing_name game penstock": 2},
		"rejected_requests_total": {"empty_body game penstock": 1, "unknown_key  penstock": 1,
			"not_found  ": 1},
	} {
		if diff := cmp.Diff(want, counted(t, reg, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The series of known projects begin at 0. Beyond maxProjects they share one.
func TestProjectsInMetricsAreBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := &sink{}
	r := must(New(options(), s, s, slog.New(slog.DiscardHandler), reg))
	var keys []Key
	for i := range maxProjects + 50 {
		name := fmt.Sprintf("p%03d", i)
		keys = append(keys, Key{Project: name, Hash: HashKey("key-of-" + name)})
	}
	if err := r.SetProjects(nil, keys); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		serve(t, r, post("/v1/events", `{"name":"a"}`, "Authorization", "Bearer key-of-"+k.Project))
	}
	got := counted(t, reg, "events_total")
	// Two projects are in the options.
	if len(got) != maxProjects-2+1 || got["other penstock"] != 52 || got["p000 penstock"] != 1 {
		t.Errorf("%d series, %v of others, want %d and 52", len(got), got["other penstock"], maxProjects-1)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "penstock_receiver_events_total" && len(f.GetMetric()) != maxProjects+1 {
			t.Errorf("%d series with those at 0, want %d", len(f.GetMetric()), maxProjects+1)
		}
	}
}
