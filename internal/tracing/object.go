package tracing

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/penstock/penstock/internal/pipeline"
)

// ObjectTrace returns the trace ID of an object: the first 16 bytes of the SHA-256 of its key, in hex.
func ObjectTrace(key string) string {
	id, _ := idsOf(key)
	return id.String()
}

// idsOf derives an object's trace ID and the ID of its root span from its key.
func idsOf(key string) (id trace.TraceID, root trace.SpanID) {
	sum := sha256.Sum256([]byte(key))
	copy(id[:], sum[:16])
	copy(root[:], sum[16:])
	return id, root
}

// rootOf is the root span of an object's trace, wherever it is made.
func rootOf(key string) trace.SpanContext {
	id, root := idsOf(key)
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: root, TraceFlags: trace.FlagsSampled,
		Remote: true})
}

// Object returns a context whose spans belong to the object's trace, below its root span. Objects that no receiver
// stored have no root span. Their spans have no parent.
func (t *Tracer) Object(ctx context.Context, key string) context.Context {
	if t == nil {
		return ctx
	}
	if _, err := pipeline.ParseKey(key); err == nil {
		return trace.ContextWithRemoteSpanContext(ctx, rootOf(key))
	}
	id, _ := idsOf(key)
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	return context.WithValue(ctx, fixedIDs{}, trace.NewSpanContext(trace.SpanContextConfig{TraceID: id}))
}

// Root makes the root span of an object's trace. An object that is stored twice, because its receiver was killed in
// between, has two spans with the same ID.
func (t *Tracer) Root(key string, from, to time.Time, attributes ...any) {
	if t == nil {
		return
	}
	ctx := context.WithValue(context.Background(), fixedIDs{}, rootOf(key))
	_, span := t.tracer.Start(ctx, "object", trace.WithTimestamp(from), trace.WithAttributes(pairs(attributes)...),
		trace.WithAttributes(pairs([]any{"object", key})...))
	span.End(trace.WithTimestamp(notBefore(from, to)))
}

// fixedIDs is the key of the IDs in a context that a span without a parent gets.
type fixedIDs struct{}

// ids generates the IDs of spans: random ones, unless the context has others.
type ids struct{}

func (ids) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	fixed, _ := ctx.Value(fixedIDs{}).(trace.SpanContext)
	id, span = fixed.TraceID(), fixed.SpanID()
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())  // #nosec G404 -- ids are to be unique, not secret
		binary.BigEndian.PutUint64(id[8:], rand.Uint64()) // #nosec G404 -- ids are to be unique, not secret
	}
	if !span.IsValid() {
		span = ids{}.NewSpanID(ctx, id)
	}
	return id, span
}

func (ids) NewSpanID(context.Context, trace.TraceID) (span trace.SpanID) {
	for !span.IsValid() {
		binary.BigEndian.PutUint64(span[:], rand.Uint64()) // #nosec G404 -- ids are to be unique, not secret
	}
	return span
}
