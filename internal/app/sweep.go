package app

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/loader/audit"
)

// sweep adds the periodic sweep of sweep.span.
func (o *outlet) sweep(spec pipeline.Spec, enqueue audit.Enqueue) {
	cfg := o.cfg.Sweep
	claim := func(ctx context.Context) (audit.Claim, bool, error) {
		return o.store.Claim(ctx, "sweep-"+spec.Name, o.name, 3*time.Duration(cfg.Every))
	}
	o.sweeps = append(o.sweeps, audit.NewPeriodic(spec, audit.PeriodicOptions{
		Bucket: o.store, Ledger: o.db, Claim: claim, Enqueue: enqueue,
		Every: time.Duration(cfg.Every), Span: time.Duration(cfg.Span), Grace: time.Duration(cfg.Grace),
	}, o.log, o.reg).Run)
}

// fullSweepTTL is how long another loader waits before it continues the pass of one that was killed.
const fullSweepTTL = 2 * time.Minute

// fullSweep adds the sweep of what is outside sweep.span, if the configuration wants one.
func (o *outlet) fullSweep(spec pipeline.Spec, enqueue audit.Enqueue) {
	cfg := o.cfg.Sweep
	if cfg.FullEvery == 0 {
		return
	}
	claim := func(ctx context.Context) (audit.Notebook, bool, error) {
		c, held, err := o.store.Claim(ctx, "full-sweep-"+spec.Name, o.name, fullSweepTTL)
		return c, held, err
	}
	f := audit.NewFullSweep(spec, audit.FullSweepOptions{
		Bucket: o.store, Ledger: o.db, Claim: claim, Enqueue: enqueue,
		Every: time.Duration(cfg.FullEvery), Retry: time.Duration(cfg.Every), Rate: cfg.FullRate,
		Span: time.Duration(cfg.Span), Grace: time.Duration(cfg.Grace), TTL: fullSweepTTL,
	}, o.log, o.reg)
	o.sweeps = append(o.sweeps, f.Run)
}
