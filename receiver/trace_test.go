package receiver

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/testing/spans"
	"github.com/penstock/penstock/internal/tracing"
)

// traced makes a receiver that traces each request. end returns its spans.
func traced(t *testing.T, opts tracing.Options) (r *Receiver, s *sink, end func() []spans.Span) {
	t.Helper()
	to := spans.NewMemory()
	opts.Enabled, opts.Exporter = true, to
	tracer, err := tracing.New(opts, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r, s = newTest(func(o *Options) { o.Tracer = tracer })
	return r, s, func() []spans.Span { tracer.Close(); return to.Spans() }
}

// everything traces all requests.
func everything() tracing.Options { return tracing.Options{Requests: 1, ClientRequests: 1} }

const (
	clientTrace = "0af7651916cd43dd8448eb211c80319c"
	traceparent = "00-" + clientTrace + "-b7ad6b7169203331-01"
)

// A request is a span of its object's trace, and one of its client's trace.
func TestTraceOfARequest(t *testing.T) {
	r, _, end := traced(t, everything())
	began := time.Now()
	serve(t, r, withKey(post("/v1/events", `[{"name":"a"},{"name":"b"}]`, "Traceparent", traceparent)))
	serve(t, r, withKey(post("/v1/events", `{"name":"c"}`)))
	all := end()
	if len(all) != 3 {
		t.Fatalf("got %+v", all)
	}
	object := tracing.ObjectTrace("events/x.parquet") // the sink's
	for i, want := range []string{clientTrace, object, object} {
		if s := all[i]; s.Trace != want || s.Name != "POST /v1/events" || s.Error != "" {
			t.Errorf("span %d: %+v, want the trace %s", i, s, want)
		}
	}
	s := all[0]
	if s.Attributes["penstock.accepted_events"] != int64(2) || s.Attributes["penstock.project"] != "game" ||
		s.Attributes["penstock.protocol"] != "penstock" || s.Attributes["http.response.status_code"] != int64(202) ||
		s.Attributes["penstock.durability"] != "disk" || s.Attributes["penstock.body_bytes"] != int64(27) {
		t.Errorf("attributes %v", s.Attributes)
	}
	if diff := cmp.Diff([]string{"body read", "events appended", "events durable"}, s.Events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if s.Start.Before(began) || s.End.Before(s.Start) || s.End.After(time.Now()) {
		t.Errorf("from %s to %s", s.Start, s.End)
	}
}

// What is rejected is an error. No span has a key or a path that a stranger made up.
func TestTraceOfRejections(t *testing.T) {
	r, s, end := traced(t, everything())
	serve(t, r, withKey(post("/v1/events", `[{"name":"a"},{"nam":5}]`)))
	serve(t, r, post("/v1/events?key=wrong-secret", `{"name":"a"}`))
	serve(t, r, post("/made/up", `{"name":"a"}`))
	req := withKey(post("/v1/events", `{"name":"a"}`))
	req.Method = "BREW"
	serve(t, r, req)
	serve(t, r, post("/v1/events?key="+key, `{"name":"a"}`))
	s.Err = fmt.Errorf("the disk is full")
	serve(t, r, withKey(post("/v1/events", `{"name":"a"}`)))
	var got []string
	for _, s := range end() {
		got = append(got, fmt.Sprint(s.Name, " ", s.Attributes["http.response.status_code"], " ", s.Error))
		if text := fmt.Sprintf("%+v", s); strings.Contains(text, key) || strings.Contains(text, "wrong-secret") ||
			strings.Contains(text, "made") || strings.Contains(text, "BREW") {
			t.Errorf("the span shows what it must not: %s", text)
		}
	}
	want := []string{"POST /v1/events 202 missing_name", "POST /v1/events 401 unknown_key", "POST 404 not_found",
		"_OTHER /v1/events 405 method_not_allowed", "POST /v1/events 202 ", "POST /v1/events 503 unavailable"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// Requests beyond the sample are not traced.
func TestNotSampled(t *testing.T) {
	r, _, end := traced(t, tracing.Options{Requests: 0, ClientRequests: 1})
	serve(t, r, withKey(post("/v1/events", `{"name":"a"}`)))
	serve(t, r, withKey(post("/v1/events", `{"name":"a"}`, "Traceparent", strings.TrimSuffix(traceparent, "1")+"0")))
	serve(t, r, post("/v1/events", `{"name":"a"}`, "Traceparent", traceparent)) // without a key
	if all := end(); len(all) != 0 {
		t.Errorf("got %+v", all)
	}
}

// A receiver whose collector is a receiver, perhaps itself, does not trace the requests with its own spans.
func TestOwnSpansAreNotTraced(t *testing.T) {
	var r *Receiver
	served := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.ServeHTTP(w, req)
		served <- req.URL.Path
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20"+key)
	reg := prometheus.NewRegistry()
	tracer, err := tracing.New(tracing.Options{Enabled: true, Endpoint: server.URL, Service: "penstock-receive",
		Requests: 1, ClientRequests: 1}, slog.New(slog.DiscardHandler), reg)
	if err != nil {
		t.Fatal(err)
	}
	var s *sink
	r, s = newTest(func(o *Options) { o.Tracer = tracer })
	serve(t, r, withKey(post("/v1/events", `{"name":"a"}`)))
	tracer.Close()
	if path := <-served; path != "/v1/traces" {
		t.Errorf("the exporter sent to %s", path)
	}
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if len(s.Events) != 2 || !strings.Contains(string(s.Events[1].Properties), "penstock.request_id") {
		t.Errorf("the receiver has %d events, want the client's and its span", len(s.Events))
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, m := range families[0].Metric {
		got[m.Label[0].GetValue()] = m.Counter.GetValue()
	}
	if diff := cmp.Diff(map[string]float64{"sent": 1, "dropped": 0, "failed": 0}, got); diff != "" {
		t.Errorf("spans by result (-want +got):\n%s", diff)
	}
}
