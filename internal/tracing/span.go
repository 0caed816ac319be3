package tracing

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Span is a part of the work on an object, with a begin and an end. The zero Span is none.
type Span struct{ span trace.Span }

// Start begins a span below that of ctx. attributes are pairs, as those of slog. A name without a dot gets the prefix
// "penstock.".
func (t *Tracer) Start(ctx context.Context, name string, attributes ...any) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithAttributes(pairs(attributes)...))
	return ctx, Span{span}
}

// Here returns the span of ctx.
func Here(ctx context.Context) Span { return Span{trace.SpanFromContext(ctx)} }

// Record makes a span of what has happened.
func (t *Tracer) Record(ctx context.Context, name string, from, to time.Time, err error, attributes ...any) {
	if t == nil {
		return
	}
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(pairs(attributes)...))
	fail(span, err)
	span.End(trace.WithTimestamp(notBefore(from, to)))
}

// Set adds attributes.
func (s Span) Set(attributes ...any) {
	if s.span != nil {
		s.span.SetAttributes(pairs(attributes)...)
	}
}

// End ends the span. An error becomes its status.
func (s Span) End(err error) {
	if s.span != nil {
		fail(s.span, err)
		s.span.End()
	}
}

func fail(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, text(err.Error()))
	}
}

// notBefore keeps a span from ending before it begins. Times of several clocks may say so.
func notBefore(from, to time.Time) time.Time {
	if to.Before(from) {
		return from
	}
	return to
}

// pairs turns names and values into attributes.
func pairs(of []any) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, len(of)/2)
	for i := 0; i+1 < len(of); i += 2 {
		name := fmt.Sprint(of[i])
		if !strings.Contains(name, ".") {
			name = "penstock." + name
		}
		all = append(all, attribute.KeyValue{Key: attribute.Key(name), Value: valueOf(of[i+1])})
	}
	return all
}

func valueOf(v any) attribute.Value {
	switch v := v.(type) {
	case int:
		return attribute.IntValue(v)
	case int64:
		return attribute.Int64Value(v)
	case uint32:
		return attribute.Int64Value(int64(v))
	case uint64:
		return attribute.Int64Value(int64(v))
	case bool:
		return attribute.BoolValue(v)
	}
	return attribute.StringValue(text(fmt.Sprint(v)))
}

// maxText limits a text in a span, in bytes.
const maxText = 512

// text makes a text valid UTF-8. One that is not would make protobuf refuse all spans that are sent with it.
func text(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxText)], "\uFFFD") }
