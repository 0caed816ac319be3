package audit

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Claim is the exclusive right to do something, until it expires.
type Claim interface {
	Renew(ctx context.Context) (held bool, err error)
	Release(ctx context.Context) error
}

// PeriodicOptions configure a periodic sweep.
type PeriodicOptions struct {
	Bucket  Lister
	Ledger  Ledger
	Claim   func(context.Context) (Claim, bool, error) // false: another process has it
	Enqueue Enqueue

	Every time.Duration // mean interval; the actual one varies by half of it
	Span  time.Duration // how far back a sweep looks
	Grace time.Duration // younger objects may still be on their way
}

// Periodic finds notifications that the queue has lost. It sweeps the last days periodically, in the process that holds
// the claim.
type Periodic struct {
	spec  pipeline.Spec
	opts  PeriodicOptions
	log   *slog.Logger
	claim Claim // nil: not held

	succeeded prometheus.Gauge
	enqueued  prometheus.Counter
}

// NewPeriodic returns the periodic sweep of one pipeline.
func NewPeriodic(spec pipeline.Spec, opts PeriodicOptions, log *slog.Logger, reg prometheus.Registerer) *Periodic {
	p := &Periodic{spec: spec, opts: opts, log: log.With("pipeline", spec.Name),
		succeeded: prometheus.NewGauge(prometheus.GaugeOpts{Name: "penstock_sweep_last_success_timestamp_seconds",
			Help: "Unix time at which the last periodic sweep by this process ended well; 0: none since the start."}),
		enqueued: prometheus.NewCounter(prometheus.CounterOpts{Name: "penstock_sweep_enqueued_objects_total",
			Help: "Objects that periodic sweeps found not loaded, and enqueued."})}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"pipeline": spec.Name}, reg)
	reg.MustRegister(p.succeeded, p.enqueued)
	return p
}

// Run sweeps until the context ends, then it releases the claim.
func (p *Periodic) Run(ctx context.Context) {
	every := p.opts.Every
	for retry.Sleep(ctx, every/2+time.Duration(time.Now().UnixNano())%(every/2+1)) == nil {
		held, err := p.hold(ctx)
		if err != nil && ctx.Err() == nil {
			p.log.Warn("sweep claim failed", "error", err)
		}
		if held {
			p.sweep(ctx)
		}
	}
	if p.claim == nil {
		return
	}
	quick, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := p.claim.Release(quick); err != nil {
		p.log.Warn("the claim of the sweep was not released; it expires", "error", err)
	}
}

// hold renews the claim, or acquires it.
func (p *Periodic) hold(ctx context.Context) (held bool, err error) {
	if p.claim != nil {
		if held, err = p.claim.Renew(ctx); held && err == nil {
			return true, nil
		}
		p.claim = nil
		if err != nil {
			return false, err
		}
	}
	claim, held, err := p.opts.Claim(ctx)
	if held && err == nil {
		p.claim = claim
	}
	return p.claim != nil, err
}

func (p *Periodic) sweep(ctx context.Context) {
	now := time.Now()
	swept, err := Sweep(ctx, SweepOptions{Scope: InSpan(p.spec, Span{now.Add(-p.opts.Span), now.Add(time.Hour)}),
		Bucket: p.opts.Bucket, Ledger: p.opts.Ledger, Grace: p.opts.Grace, Enqueue: p.opts.Enqueue})
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		p.log.Warn("sweep failed; the next one starts over", "error", err)
		return
	case swept.Enqueued > 0:
		p.log.Warn("sweep found objects that were not loaded", "enqueued", swept.Enqueued, "objects", swept.Objects)
	}
	p.enqueued.Add(float64(swept.Enqueued))
	p.succeeded.SetToCurrentTime()
}
