package tracing

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/penstock/penstock/internal/pipeline"
)

// Request is a client's request that is traced.
//
// The key of its object is known only after its events are written to the log, which the answer may not wait for. So
// the receiver notes what happened, and the spans are made afterwards.
type Request struct {
	Began, Ended time.Time
	Read         time.Time // the body was read; zero: it was not
	Appended     time.Time // the batcher had copied the events; zero: it did not
	Stored       time.Time // they were as durable as asked

	Method, Route string // Route: the path without the key; empty: nothing has this path
	Protocol      string
	Project       string // empty: the key is not known
	ID            string
	Durability    string
	Status        int
	Bytes         int // of the body, decompressed
	Accepted      int // events
	Rejected      int
	Code          string // of the request's error, or the first event's; empty: none

	Ticket pipeline.Ticket // of its events; nil: none was accepted

	parent trace.SpanContext // of the client; invalid: none
}

// Sample returns a Request if the request with these headers is to be traced, and nil if not. A client that has decided
// not to sample is followed.
func (t *Tracer) Sample(h http.Header, began time.Time) *Request {
	if t == nil {
		return nil
	}
	share, random := t.opts.Requests, uint64(0)
	var parent trace.SpanContext
	if h["Traceparent"] != nil { // tracestate is not kept: it may have 16 KiB for each span that waits
		parent = trace.SpanContextFromContext(
			propagation.TraceContext{}.Extract(context.Background(), propagation.HeaderCarrier{"Traceparent": h["Traceparent"]}))
	}
	if parent.IsValid() {
		if !parent.IsSampled() {
			return nil
		}
		// All processes that trace the same share of such requests choose the same ones.
		id := parent.TraceID()
		share, random = t.opts.ClientRequests, binary.BigEndian.Uint64(id[8:])
	} else {
		random = rand.Uint64() // #nosec G404 -- a sample
	}
	if share < 1 && float64(random>>1) >= share*math.MaxInt64 {
		return nil
	}
	return &Request{Began: began, parent: parent}
}

// Request sends the spans of a request. It does not block. A request without a known key is not traced because its
// traceparent says so: anybody could send that.
func (t *Tracer) Request(r *Request) {
	if r.parent.IsValid() && r.Project == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		t.exporter.counts.dropped.Inc()
		return
	}
	select {
	case t.requests <- r:
	default:
		t.exporter.counts.dropped.Inc()
	}
}

// maxJoined is how many requests join the trace of one object. Collectors and browsers cannot show traces of any size.
// Others have traces of their own, which link to the object's.
const maxJoined = 1000

// joined counts the requests in the traces of the last objects.
type joined struct {
	keys  [4]string // more than one batch may be open at a roll
	count [4]int
	next  int
}

// add reports whether one more request may join the object's trace.
func (j *joined) add(key string) bool {
	for i := range j.keys {
		if j.keys[i] == key {
			j.count[i]++
			return j.count[i] <= maxJoined
		}
	}
	j.keys[j.next], j.count[j.next] = key, 1
	j.next = (j.next + 1) % len(j.keys)
	return true
}

// writeRequests makes the spans of requests, in their order. ctx ends its waits for keys.
func (t *Tracer) writeRequests(ctx context.Context) {
	var joined joined
	for r := range t.requests {
		key := ""
		if r.Ticket != nil {
			key = r.Ticket.Key(ctx)
		}
		t.write(r, key, key != "" && joined.add(key))
	}
}

// write makes a request's spans. Its span is in the client's trace, if there is one, and links to the object's trace. A
// span in the object's trace links back. Without a client's trace, one span in the object's trace is enough.
func (t *Tracer) write(r *Request, key string, join bool) {
	ctx := context.Background()
	toObject := func() []trace.Link {
		if key == "" {
			return nil
		}
		return []trace.Link{{SpanContext: rootOf(key)}}
	}
	inObject := trace.ContextWithRemoteSpanContext(ctx, rootOf(key))
	switch {
	case r.parent.IsValid():
		own := t.span(trace.ContextWithRemoteSpanContext(ctx, r.parent), r, trace.SpanKindServer, toObject())
		if join {
			t.span(inObject, r, trace.SpanKindInternal, []trace.Link{{SpanContext: own}})
		}
	case join:
		t.span(inObject, r, trace.SpanKindServer, nil)
	default:
		t.span(ctx, r, trace.SpanKindServer, toObject())
	}
}

// span makes one span of a request.
func (t *Tracer) span(ctx context.Context, r *Request, kind trace.SpanKind, links []trace.Link) trace.SpanContext {
	name := r.Method
	if r.Route != "" {
		name += " " + r.Route
	}
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(r.Began), trace.WithSpanKind(kind),
		trace.WithLinks(links...), trace.WithAttributes(r.attributes()...))
	for _, step := range []struct {
		name string
		at   time.Time
	}{{"body read", r.Read}, {"events appended", r.Appended}, {"events durable", r.Stored}} {
		if !step.at.IsZero() {
			span.AddEvent(step.name, trace.WithTimestamp(step.at))
		}
	}
	if r.Code != "" {
		span.SetStatus(codes.Error, r.Code)
	}
	span.End(trace.WithTimestamp(r.Ended))
	return span.SpanContext()
}

// attributes leaves out what the request has not.
func (r *Request) attributes() []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, 11)
	for _, a := range []struct{ name, text string }{{"http.request.method", r.Method}, {"http.route", r.Route},
		{"error.type", r.Code}, {"penstock.request_id", r.ID}, {"penstock.project", text(r.Project)},
		{"penstock.protocol", r.Protocol}, {"penstock.durability", r.Durability}} {
		if a.text != "" {
			all = append(all, attribute.String(a.name, a.text))
		}
	}
	return append(all, attribute.Int("http.response.status_code", r.Status), attribute.Int("penstock.body_bytes", r.Bytes),
		attribute.Int("penstock.accepted_events", r.Accepted), attribute.Int("penstock.rejected_events", r.Rejected))
}
