package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/testing/spans"
)

// ticket is that of events in an object.
type ticket string

func (k ticket) Wait(context.Context) (string, error) { return "", nil }
func (k ticket) Key(context.Context) string           { return string(k) }

// pending is a ticket whose key is never known.
type pending struct{ ticket }

func (pending) Key(ctx context.Context) string { <-ctx.Done(); return "" }

func head(traceparent string) http.Header {
	if traceparent == "" {
		return http.Header{}
	}
	return http.Header{"Traceparent": {traceparent}}
}

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	clientSpan  = "b7ad6b7169203331"
	traceparent = "00-" + clientTrace + "-" + clientSpan + "-01"
)

// The client's decision counts if it has made one. Otherwise, the share decides.
func TestSample(t *testing.T) {
	for _, tt := range []struct {
		traceparent      string
		requests, client float64
		want             bool
	}{
		{"", 0, 1, false},
		{"", 1, 0, true},
		{traceparent, 0, 1, true},
		{traceparent, 1, 0, false},
		{"00-" + clientTrace + "-" + clientSpan + "-00", 1, 1, false}, // as those of the exporter
		{"00-" + clientTrace + "-" + clientSpan, 1, 0, true},          // none: it is malformed
		{"00-" + clientTrace + "-" + clientSpan, 0, 1, false},
	} {
		tracer := &Tracer{opts: Options{Requests: tt.requests, ClientRequests: tt.client}}
		if got := tracer.Sample(head(tt.traceparent), time.Time{}) != nil; got != tt.want {
			t.Errorf("%+v: traced: %v", tt, got)
		}
	}
}

func TestSampleIsAShare(t *testing.T) {
	tracer := &Tracer{opts: Options{Requests: 0.25, ClientRequests: 0.25}}
	const n = 10_000
	for name, header := range map[string]func(i int) http.Header{
		"without a trace": func(int) http.Header { return head("") },
		"with a trace": func(i int) http.Header {
			return head(fmt.Sprintf("00-%s-%s-01", ObjectTrace(fmt.Sprint(i)), clientSpan))
		},
	} {
		traced := 0
		for i := range n {
			if tracer.Sample(header(i), time.Time{}) != nil {
				traced++
			}
		}
		if traced < n/5 || traced > n*3/10 { // 11 standard deviations
			t.Errorf("%s: %d of %d traced, want a quarter", name, traced, n)
		}
	}
}

// send sends requests and returns their spans.
func send(t *testing.T, requests ...*Request) []spans.Span {
	t.Helper()
	r := start(t, &memory{})
	for _, q := range requests {
		r.Request(q)
	}
	r.Close()
	return r.to.Spans()
}

// request is one that was answered.
func request(t *testing.T, traceparent string) *Request {
	t.Helper()
	began := time.Date(2026, 11, 22, 3, 45, 13, 0, time.UTC)
	tracer := &Tracer{opts: Options{Requests: 1, ClientRequests: 1}}
	q := tracer.Sample(head(traceparent), began)
	if q == nil {
		t.Fatal("not traced")
	}
	const ms = time.Millisecond
	q.Read, q.Appended, q.Stored, q.Ended = began.Add(ms), began.Add(2*ms), began.Add(3*ms), began.Add(4*ms)
	q.Method, q.Route, q.Protocol, q.Project, q.ID = "POST", "/v1/events", "native", "game", "1f"
	q.Status, q.Accepted, q.Ticket = 202, 5, ticket(key)
	return q
}

// A request without a trace of its client is one span in its object's trace.
func TestRequestJoinsItsObject(t *testing.T) {
	got := send(t, request(t, ""))
	_, root := idsOf(key)
	if len(got) != 1 || got[0].Name != "POST /v1/events" || got[0].Trace != ObjectTrace(key) ||
		got[0].Parent != root.String() || got[0].Kind != "SERVER" || len(got[0].Links) != 0 || got[0].Error != "" {
		t.Fatalf("got %+v", got)
	}
	want := map[string]any{"http.request.method": "POST", "http.route": "/v1/events",
		"http.response.status_code": int64(202), "penstock.request_id": "1f", "penstock.project": "game",
		"penstock.protocol": "native", "penstock.body_bytes": int64(0),
		"penstock.accepted_events": int64(5), "penstock.rejected_events": int64(0)}
	if diff := cmp.Diff(want, got[0].Attributes); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"body read", "events appended", "events durable"}, got[0].Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if took := got[0].End.Sub(got[0].Start); took != 4*time.Millisecond {
		t.Errorf("it took %s", took)
	}
}

// A request of a traced client is a span in the client's trace and one in the object's. Each links to the other trace.
func TestRequestOfATracedClient(t *testing.T) {
	got := send(t, request(t, traceparent))
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	own, joined := got[0], got[1]
	_, root := idsOf(key)
	if own.Trace != clientTrace || own.Parent != clientSpan || own.Kind != "SERVER" {
		t.Errorf("in the client's trace: %+v", own)
	}
	if joined.Trace != ObjectTrace(key) || joined.Parent != root.String() || joined.Kind != "INTERNAL" {
		t.Errorf("in the object's trace: %+v", joined)
	}
	if diff := cmp.Diff([][]string{{ObjectTrace(key) + "/" + root.String()}, {own.Trace + "/" + own.ID}},
		[][]string{own.Links, joined.Links}); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
}

// A rejected request has a trace of its own, or its client's, and an error.
func TestRejectedRequest(t *testing.T) {
	rejected := func(q *Request) *Request {
		q.Ticket, q.Status, q.Code, q.Accepted = nil, 429, "rate_limited", 0
		return q
	}
	stranger := rejected(request(t, ""))
	stranger.Project = ""
	forced := rejected(request(t, traceparent))
	forced.Project = "" // anybody can send a traceparent
	got := send(t, rejected(request(t, "")), rejected(request(t, traceparent)), stranger, forced)
	if len(got) != 3 {
		t.Fatalf("%d spans, want 3: %+v", len(got), got)
	}
	for i, s := range got {
		if s.Error != "rate_limited" || s.Attributes["error.type"] != "rate_limited" || len(s.Links) != 0 ||
			(s.Trace == clientTrace) != (i == 1) || s.Trace == ObjectTrace("") {
			t.Errorf("%d: %+v", i, s)
		}
	}
}

// A trace that is too large can be shown by nobody. Later requests link to it.
func TestTraceOfAnObjectIsBounded(t *testing.T) {
	var all []*Request
	for range maxJoined + 10 {
		all = append(all, request(t, ""))
	}
	_, root := idsOf(key)
	joined, linked := 0, 0
	for _, s := range send(t, all...) {
		switch {
		case s.Trace == ObjectTrace(key):
			joined++
		case len(s.Links) == 1 && s.Links[0] == ObjectTrace(key)+"/"+root.String():
			linked++
		}
	}
	if joined != maxJoined || linked != 10 {
		t.Errorf("%d requests in the object's trace, %d linked to it; want %d and 10", joined, linked, maxJoined)
	}
}

// Requests whose key is not known yet are bounded as well, and the receiver does not wait for them.
func TestRequestsAreBounded(t *testing.T) {
	r := start(t, &memory{})
	const n = 2 * maxRequests
	for range n {
		q := request(t, "")
		q.Ticket = pending{}
		r.Request(q)
	}
	if dropped := r.count(t, "dropped"); dropped != n-maxRequests && dropped != n-maxRequests-1 {
		t.Errorf("%v dropped of %d, %d fit", dropped, n, maxRequests)
	}
	r.stop()
	r.Close()
	r.Request(request(t, "")) // of a connection that was cut off
	if got := r.count(t, "sent") + r.count(t, "dropped"); got != n+1 {
		t.Errorf("%v spans sent or dropped, want %d", got, n+1)
	}
}

// The exporter's requests say that they are not sampled. A receiver that gets them does not trace them.
func TestExporterIsNotTraced(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-scope = a")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	c := spans.Collect(t)
	tracer, err := New(Options{Enabled: true, Endpoint: c.URL, Service: "penstock-receive", Requests: 1,
		ClientRequests: 1}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	tracer.Request(request(t, ""))
	tracer.Close()
	heads, _ := c.Requests()
	if got := c.Spans(); len(heads) != 1 || len(got) != 1 || got[0].Service != "penstock-receive" {
		t.Fatalf("%d requests with %+v", len(heads), got)
	}
	if tracer.Sample(heads[0], time.Now()) != nil {
		t.Errorf("a receiver would trace the request with the headers %v", heads[0])
	}
	if heads[0].Get("Authorization") != "Bearer abc" || heads[0].Get("X-Scope") != "a" {
		t.Errorf("headers of the environment: %v", heads[0])
	}
}

// The endpoint may come from the environment only.
func TestEndpointOfTheEnvironment(t *testing.T) {
	c := spans.Collect(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_SERVICE_NAME", "events-eu")
	tracer, err := New(Options{Enabled: true, Service: "penstock-receive"}, slog.New(slog.DiscardHandler),
		prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	tracer.Root(key, time.Now(), time.Now())
	tracer.Close()
	if got := c.Spans(); len(got) != 1 || got[0].Service != "events-eu" {
		t.Errorf("got %+v", got)
	}
}

// A client's tracestate may be large, and thousands of spans wait.
func TestTracestateIsNotKept(t *testing.T) {
	r := start(t, &memory{})
	defer r.Close()
	h := head("00-" + clientTrace + "-" + clientSpan + "-01")
	h.Set("Tracestate", "vendor=value")
	got := r.Sample(h, time.Now())
	if got == nil || !got.parent.IsValid() {
		t.Fatalf("got %+v, want a traced request", got)
	}
	if n := got.parent.TraceState().Len(); n != 0 {
		t.Errorf("%d members of tracestate are kept, want none", n)
	}
}
