package e2e

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/testing/spans"
	"github.com/penstock/penstock/internal/tracing"
)

// One trace leads from a request to its row, over two processes that share nothing but the object's key, and over the
// death of a loader.
func TestTraces(t *testing.T) {
	t.Parallel()
	s := newStack(t)
	c := spans.Collect(t)
	s.environ = []string{"PENSTOCK_TRACING_ENABLED=true", "PENSTOCK_TRACING_ENDPOINT=" + c.URL,
		"PENSTOCK_TRACING_REQUESTS=1", s.backend.lease + "=3s"}
	const client = "0af7651916cd43dd8448eb211c80319c"
	r := s.start("r1", "receive")
	if status, a := post(t, r.URL+"/v1/events", `{"name":"traced"}`, "Traceparent",
		"00-"+client+"-b7ad6b7169203331-01"); status != 202 {
		t.Fatalf("%d, %+v", status, a)
	}
	killed := s.launch("l1", "load", "PENSTOCK_FAULTPOINT=loader.inserted")
	select {
	case <-killed.Done():
	case <-time.After(time.Minute):
		t.Fatal("the loader did not reach its end")
	}
	l := s.start("l2", "load")
	s.loadedRows("events", 1)
	post(t, r.URL+"/v1/events?durability=memory", `{"name":"untraced"}`)
	s.loadedRows("events", 2)
	r.term()
	l.term()

	// The trace ID of a row, as docs/operate/traces.md computes it.
	id := func(name string) string {
		return one[string](s, "SELECT lower(hex(substring(SHA256(object), 1, 16))) FROM events WHERE name = '"+name+"'")
	}
	object := one[string](s, "SELECT object FROM events WHERE name = 'traced'")
	if got := id("traced"); got != tracing.ObjectTrace(object) {
		t.Fatalf("ClickHouse computes the trace %s, Penstock %s", got, tracing.ObjectTrace(object))
	}
	all := c.Spans()
	const lost = " no end is in the ledger: the loader was killed, or still worked on it"
	receive := []string{"penstock-receive - > object", "penstock-receive object > POST /v1/events",
		"penstock-receive object > batch", "penstock-receive object > encode", "penstock-receive object > put"}
	load := []string{"penstock-load load > read ledger", "penstock-load load > fetch", "penstock-load load > compare",
		"penstock-load load > claim", "penstock-load load > insert", "penstock-load load > write ledger",
		"penstock-load object > load"}
	wantTrace(t, all, id("traced"), slices.Concat(receive, load, []string{"penstock-load object > load" + lost})...)
	wantTrace(t, all, id("untraced"), slices.Concat(receive, load, []string{"penstock-load object > notification",
		"penstock-load insert > insert chunk"})...)

	// The client's trace leads to the object's, and back.
	byTrace := func(id, name string) spans.Span {
		for _, s := range all {
			if s.Trace == id && s.Name == name {
				return s
			}
		}
		t.Fatalf("no span %s in %s", name, id)
		return spans.Span{}
	}
	own, joined, root := byTrace(client, "POST /v1/events"), byTrace(id("traced"), "POST /v1/events"),
		byTrace(id("traced"), "object")
	if diff := cmp.Diff([][]string{{root.Trace + "/" + root.ID}, {own.Trace + "/" + own.ID}},
		[][]string{own.Links, joined.Links}); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	if own.Parent != "b7ad6b7169203331" || root.Attributes["penstock.object"] != object {
		t.Errorf("the client's span has the parent %s, the root the attributes %v", own.Parent, root.Attributes)
	}
	end := byTrace(id("untraced"), "write ledger").End
	if begin := byTrace(id("untraced"), "POST /v1/events").Start; end.Sub(begin) < time.Second { // batcher.roll_age
		t.Errorf("from request to row in %s", end.Sub(begin))
	}
	_, bodies := c.Requests()
	for _, b := range bodies {
		if bytes.Contains(b, []byte(key)) {
			t.Error("a span has the key in it")
		}
	}
}

// wantTrace checks each span's service, the name of its parent, its name and its error.
func wantTrace(t *testing.T, all []spans.Span, id string, want ...string) {
	t.Helper()
	names := map[string]string{"": "-"}
	for _, s := range all {
		names[s.ID] = s.Name
	}
	var got []string
	for _, s := range all {
		if s.Trace == id {
			got = append(got, strings.TrimSpace(s.Service+" "+names[s.Parent]+" > "+s.Name+" "+s.Error))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans of the trace %s (-want +got):\n%s", id, diff)
	}
}
