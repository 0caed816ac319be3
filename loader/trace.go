package loader

import (
	"context"
	"errors"
	"time"

	"github.com/penstock/penstock/internal/tracing"
)

// maxChunkSpans limits the spans of one attempt. An object of random times may have thousands of chunks.
const maxChunkSpans = 100

// errUnfinished is the status of an attempt whose loader wrote nothing about its end.
var errUnfinished = errors.New("no end is in the ledger: the loader was killed, or still worked on it")

// traceAttempt begins the span of an attempt. attributes say why it is made.
func (l *Loader) traceAttempt(ctx context.Context, key string, attributes ...any) (context.Context, tracing.Span) {
	ctx, span := l.opts.Tracer.Start(l.opts.Tracer.Object(ctx, key), "load", attributes...)
	span.Set("object", key, "pipeline", l.spec.Name, "loader", l.opts.Name)
	return ctx, span
}

// endSpan ends the span of an attempt by what the ledger says of the object.
func (a *attempt) endSpan(span tracing.Span, err error) {
	e := &a.entry
	if e.Key == "" {
		return // the notification names no object of this loader; a span that does not end is not sent
	}
	span.Set("state", e.State.String(), "attempt", e.Attempts, "failures", e.Failures, "generation", e.Generation,
		"rows", a.out.rows, "refused_rows", len(e.Refused))
	if err != nil {
		span.Set("error.type", codeOf(err))
	}
	span.End(err)
}

// step makes one step of an attempt, with a span.
func (a *attempt) step(ctx context.Context, name string, do func(context.Context) error) error {
	ctx, span := a.opts.Tracer.Start(ctx, name)
	err := do(ctx)
	span.End(err)
	return err
}

// traceChunk inserts a chunk by send, with a span.
func (a *attempt) traceChunk(ctx context.Context, c *chunk, send func(context.Context, *chunk) error) error {
	if a.opts.Tracer == nil || a.out.inserts >= maxChunkSpans {
		return send(ctx, c)
	}
	return a.step(ctx, "insert chunk", func(ctx context.Context) error {
		tracing.Here(ctx).Set("rows", c.rows, "first_row", c.first, "end_row", c.end, "partition", c.partition)
		return send(ctx, c)
	})
}

// traceNotification makes the span of the wait for the first attempt. It begins with the store's time of the object,
// which most stores give in whole seconds.
func (a *attempt) traceNotification() {
	stored := a.content.object.Modified
	if a.entry.Attempts != 1 || stored.IsZero() {
		return
	}
	ctx := a.opts.Tracer.Object(context.Background(), a.entry.Key)
	a.opts.Tracer.Record(ctx, "notification", stored, a.began, nil, "pipeline", a.spec.Name)
}

// traceUnfinished makes the span of the earlier attempt, whose loader cannot.
func (a *attempt) traceUnfinished(now time.Time) {
	ctx := a.opts.Tracer.Object(context.Background(), a.entry.Key)
	a.opts.Tracer.Record(ctx, "load", a.entry.Started, now, errUnfinished, "object", a.entry.Key, "pipeline",
		a.spec.Name, "loader", a.entry.Loader, "attempt", a.entry.Attempts, "generation", a.entry.Generation)
}
