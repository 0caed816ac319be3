// Package tracing sends traces of Penstock itself to an OpenTelemetry collector.
//
// Each object has one trace. Its trace ID and the ID of its root span are derived from the object's key (object.go). So
// a receiver that stores the object and a loader that knows only its key write the same trace, and nothing is carried
// from one to the other. Requests join the trace of the object that their events become a part of (request.go).
//
// Nothing here blocks a stage. Spans wait in a bounded queue; what does not fit is dropped and counted (export.go).
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Options say what is traced, and where spans go.
type Options struct {
	Enabled  bool
	Endpoint string // base URL of OTLP over HTTP, without /v1/traces; empty: OTEL_EXPORTER_OTLP_* say it
	Service  string // service.name, unless OTEL_SERVICE_NAME is set
	Instance string // service.instance.id
	Version  string // service.version

	Requests       float64 // share of requests that are traced, of those without a traceparent
	ClientRequests float64 // of those whose traceparent is sampled

	Exporter sdktrace.SpanExporter // instead of OTLP, for tests; nil: none
}

// flushWait limits how long Close waits for the collector.
const flushWait = 5 * time.Second

// Tracer makes and sends spans. A nil Tracer makes none; its methods do nothing.
type Tracer struct {
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider
	exporter *exporter
	opts     Options

	requests chan *Request
	done     sync.WaitGroup     // the goroutine of requests
	stop     context.CancelFunc // ends its waits

	mu     sync.Mutex
	closed bool // no request is taken any more
}

// New returns nil if tracing is off. Its counters exist all the same. Close the Tracer after the stages that use it.
func New(opts Options, log *slog.Logger, reg prometheus.Registerer) (*Tracer, error) {
	counts := newCounts(reg)
	if !opts.Enabled {
		return nil, nil
	}
	to := opts.Exporter
	if to == nil {
		var err error
		if to, err = newOTLP(opts.Endpoint); err != nil {
			return nil, fmt.Errorf("tracing: %w; check tracing.endpoint and the variables OTEL_EXPORTER_OTLP_*", err)
		}
	}
	about, err := resource.New(context.Background(), resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", opts.Service), attribute.String("service.instance.id", opts.Instance),
		attribute.String("service.version", opts.Version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("tracing: %w; check OTEL_RESOURCE_ATTRIBUTES", err)
	}
	t := &Tracer{opts: opts, exporter: newExporter(to, counts, log), requests: make(chan *Request, maxRequests)}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithIDGenerator(ids{}),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // what is not to be sent is not made
		sdktrace.WithSpanProcessor(newProcessor(t.exporter)))
	t.tracer = t.provider.Tracer("github.com/penstock/penstock")
	waits, stop := context.WithCancel(context.Background())
	t.stop = stop
	t.done.Go(func() { t.writeRequests(waits) })
	return t, nil
}

// Close sends the spans that wait, for some seconds at most. No span may be made afterwards.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	defer t.stop()
	defer context.AfterFunc(ctx, t.stop)()
	t.mu.Lock()
	t.closed = true
	close(t.requests)
	t.mu.Unlock()
	t.done.Wait()
	t.exporter.close()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.exporter.abandon(err)
	}
}
