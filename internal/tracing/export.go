package tracing

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/penstock/penstock/internal/outagelog"
	"github.com/penstock/penstock/internal/retry"
)

const (
	maxSpans    = 4096             // that wait for the collector, some 1.5 KiB each
	maxRequests = 2048             // that are not spans yet
	exportFor   = 30 * time.Second // all attempts to send one batch of spans
)

// counts count spans by what became of them.
type counts struct{ sent, failed, dropped prometheus.Counter }

func newCounts(reg prometheus.Registerer) *counts {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "penstock_tracing_spans_total",
		Help: "Spans of Penstock's own traces, by result: sent; failed (the collector did not take them); " +
			"dropped (the queue was full)."}, []string{"result"})
	reg.MustRegister(vec)
	return &counts{sent: vec.WithLabelValues("sent"), failed: vec.WithLabelValues("failed"),
		dropped: vec.WithLabelValues("dropped")}
}

// newOTLP sends to the endpoint, or where OTEL_EXPORTER_OTLP_* say.
func newOTLP(endpoint string) (sdktrace.SpanExporter, error) {
	opts := []otlptracehttp.Option{otlptracehttp.WithHeaders(headers()),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: true, InitialInterval: time.Second,
			MaxInterval: 5 * time.Second, MaxElapsedTime: exportFor})}
	if endpoint != "" {
		u, err := url.JoinPath(endpoint, "v1/traces")
		if err != nil {
			return nil, err
		}
		opts = append(opts, otlptracehttp.WithEndpointURL(u))
	}
	return otlptracehttp.New(context.Background(), opts...)
}

// headers are those of OTEL_EXPORTER_OTLP_HEADERS, and a trace context that is not sampled. If the collector is a
// receiver of Penstock, that keeps it from tracing the requests with its own spans, and then the requests with those.
func headers() map[string]string {
	given := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
	if given == "" {
		given = os.Getenv("OTEL_EXPORTER_OTLP_HEADERS")
	}
	all := map[string]string{}
	for pair := range strings.SplitSeq(given, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if plain, err := url.PathUnescape(value); ok && err == nil {
			all[strings.TrimSpace(name)] = strings.TrimSpace(plain)
		}
	}
	var id [24]byte
	rand.Read(id[:])
	text := hex.EncodeToString(id[:])
	maps.Copy(all, map[string]string{"traceparent": "00-" + text[:32] + "-" + text[32:] + "-00"})
	return all
}

// exporter sends batches of spans. It reports failures to the log and the counters, never to OpenTelemetry's global
// handler.
type exporter struct {
	to      sdktrace.SpanExporter
	counts  *counts
	log     *slog.Logger
	outage  *outagelog.Log
	waiting atomic.Int64  // spans in the queue and on their way
	closing chan struct{} // closed at the end: each batch gets one more attempt
}

func newExporter(to sdktrace.SpanExporter, c *counts, log *slog.Logger) *exporter {
	return &exporter{to: to, counts: c, log: log, closing: make(chan struct{}),
		outage: outagelog.New(log, outagelog.Messages{Start: "collector of traces unavailable; spans are lost",
			Still: "collector of traces still unavailable; spans are lost", End: "collector of traces available again"})}
}

// ExportSpans tries for some time, so that the restart of a collector costs no span.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	n := int64(len(spans))
	defer e.waiting.Add(-n)
	backoff := retry.Backoff{Min: 500 * time.Millisecond, Max: 5 * time.Second}
	for attempt := 1; ; attempt++ {
		err := e.to.ExportSpans(ctx, spans)
		if err == nil {
			e.counts.sent.Add(float64(n))
			e.outage.Works()
			return nil
		}
		e.outage.Failed(err)
		if !unreachable(err) || !e.pause(ctx, backoff.Delay(attempt)) {
			e.counts.failed.Add(float64(n))
			return nil
		}
	}
}

// unreachable reports whether no server answered. The client itself retries what a busy server refuses.
func unreachable(err error) bool {
	_, ok := errors.AsType[*url.Error](err)
	return ok
}

// pause returns false if there is no time for another attempt.
func (e *exporter) pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.closing:
	case <-ctx.Done():
	}
	return false
}

// Shutdown is called after the last batch.
func (e *exporter) Shutdown(ctx context.Context) error { return e.to.Shutdown(ctx) }

func (e *exporter) close() { close(e.closing) }

// abandon counts what is not sent at the end.
func (e *exporter) abandon(err error) {
	left := e.waiting.Load()
	e.counts.failed.Add(float64(left))
	e.log.Warn("spans are lost: the collector of traces did not take them in time", "spans", left, "error", err)
}

// processor bounds the spans that wait. The processor of the SDK drops what does not fit and does not count it. So this
// one lets no more through than fit.
type processor struct {
	sdktrace.SpanProcessor
	exporter *exporter
}

func newProcessor(e *exporter) processor {
	return processor{sdktrace.NewBatchSpanProcessor(e, sdktrace.WithMaxQueueSize(maxSpans),
		sdktrace.WithExportTimeout(exportFor)), e}
}

// OnEnd never blocks.
func (p processor) OnEnd(s sdktrace.ReadOnlySpan) {
	if p.exporter.waiting.Add(1) > maxSpans {
		p.exporter.waiting.Add(-1)
		p.exporter.counts.dropped.Inc()
		return
	}
	p.SpanProcessor.OnEnd(s)
}
