// Package spans keeps spans for tests: those that a tracer in the test makes, and those that a process sends by OTLP.
package spans

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Span is a span that has ended.
type Span struct {
	Service    string
	Trace      string
	ID         string
	Parent     string // empty: none
	Name       string
	Kind       string // SERVER, INTERNAL
	Start, End time.Time
	Error      string // of its status; empty: it has none
	Attributes map[string]any
	Events     []string
	Links      []string // trace ID/span ID
}

// Memory is an exporter that keeps the spans.
type Memory struct{ *tracetest.InMemoryExporter }

// NewMemory returns an empty one.
func NewMemory() Memory { return Memory{tracetest.NewInMemoryExporter()} }

// Shutdown keeps the spans, unlike that of the SDK.
func (Memory) Shutdown(context.Context) error { return nil }

// Spans are those that ended.
func (m Memory) Spans() (all []Span) {
	for _, s := range m.GetSpans() {
		span := Span{Trace: s.SpanContext.TraceID().String(), ID: s.SpanContext.SpanID().String(), Name: s.Name,
			Kind: strings.ToUpper(s.SpanKind.String()), Start: s.StartTime, End: s.EndTime, Attributes: map[string]any{}}
		if s.Parent.SpanID().IsValid() {
			span.Parent = s.Parent.SpanID().String()
		}
		if s.Status.Code == codes.Error {
			span.Error = s.Status.Description
		}
		for _, a := range s.Attributes {
			span.Attributes[string(a.Key)] = a.Value.AsInterface()
		}
		for _, e := range s.Events {
			span.Events = append(span.Events, e.Name)
		}
		for _, l := range s.Links {
			span.Links = append(span.Links, l.SpanContext.TraceID().String()+"/"+l.SpanContext.SpanID().String())
		}
		all = append(all, span)
	}
	return all
}

// Named are the spans of a name.
func Named(all []Span, name string) []Span {
	return slices.DeleteFunc(slices.Clone(all), func(s Span) bool { return s.Name != name })
}

// Collector is a server of OTLP over HTTP that keeps what it gets.
type Collector struct {
	URL string

	mu     sync.Mutex
	spans  []Span
	status int // of its answers; 0: 200
	bodies [][]byte
	heads  []http.Header
}

// Collect starts a collector.
func Collect(t testing.TB) *Collector {
	c := &Collector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := read(req)
		if err == nil && req.URL.Path == "/v1/traces" {
			err = c.take(req.Header, body)
		}
		if err != nil {
			t.Errorf("collector: %s: %v", req.URL.Path, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.status != 0 {
			w.WriteHeader(c.status)
		}
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

func read(req *http.Request) ([]byte, error) {
	if req.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(req.Body)
	}
	z, err := gzip.NewReader(req.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func (c *Collector) take(head http.Header, body []byte) error {
	var data trace.TracesData // the same bytes as an ExportTraceServiceRequest
	if err := proto.Unmarshal(body, &data); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bodies, c.heads = append(c.bodies, body), append(c.heads, head)
	if c.status != 0 {
		return nil
	}
	for _, r := range data.ResourceSpans {
		service, _ := attributes(r.Resource.GetAttributes())["service.name"].(string)
		for _, scope := range r.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, decode(service, s))
			}
		}
	}
	return nil
}

// Fail makes the collector answer with a status and keep nothing; 0: it works again.
func (c *Collector) Fail(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status = status
}

// Spans are those that came.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Requests are the headers and the decompressed bodies of the requests that came.
func (c *Collector) Requests() ([]http.Header, [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.heads), slices.Clone(c.bodies)
}

func decode(service string, s *trace.Span) Span {
	span := Span{Service: service, Trace: hex.EncodeToString(s.TraceId), ID: hex.EncodeToString(s.SpanId),
		Parent: hex.EncodeToString(s.ParentSpanId), Name: s.Name,
		Kind: strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"), Start: time.Unix(0, int64(s.StartTimeUnixNano)),
		End: time.Unix(0, int64(s.EndTimeUnixNano)), Attributes: attributes(s.Attributes)}
	if s.Status.GetCode() == trace.Status_STATUS_CODE_ERROR {
		span.Error = s.Status.Message
	}
	for _, e := range s.Events {
		span.Events = append(span.Events, e.Name)
	}
	for _, l := range s.Links {
		span.Links = append(span.Links, hex.EncodeToString(l.TraceId)+"/"+hex.EncodeToString(l.SpanId))
	}
	return span
}

func attributes(of []*common.KeyValue) map[string]any {
	all := map[string]any{}
	for _, a := range of {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			all[a.Key] = v.IntValue
		case *common.AnyValue_BoolValue:
			all[a.Key] = v.BoolValue
		}
	}
	return all
}
