package app

import (
	"context"
	"time"

	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/loader/audit"
)

// sweep finds what the queue has lost, again and again, while this loader is
// the one that holds the claim to do so.
func (o *outlet) sweep(ctx context.Context, spec pipeline.Spec) {
	cfg, log := o.cfg.Sweep, o.log.With("pipeline", spec.Name)
	every := time.Duration(cfg.Every)
	var claim *objstore.Claim
	for retry.Sleep(ctx, every/2+time.Duration(time.Now().UnixNano())%(every/2+1)) == nil {
		held := false
		var err error
		if claim != nil {
			held, err = claim.Renew(ctx)
		}
		if err == nil && !held {
			claim, held, err = o.store.Claim(ctx, "sweep-"+spec.Name, o.name, 3*every)
		}
		if err != nil || !held {
			claim = nil
			if err != nil && ctx.Err() == nil {
				log.Warn("sweep: the claim cannot be had", "error", err)
			}
			continue
		}
		now := time.Now()
		swept, err := audit.Sweep(ctx, audit.SweepOptions{
			Scope:  audit.InSpan(spec, audit.Span{From: now.Add(-time.Duration(cfg.Span)), To: now.Add(time.Hour)}),
			Bucket: o.store, Ledger: o.db, Grace: time.Duration(cfg.Grace),
			Enqueue: func(ctx context.Context, n pipeline.Notification) (bool, error) {
				return o.queue.Enqueue(ctx, spec, n, false)
			},
		})
		switch {
		case ctx.Err() != nil:
		case err != nil:
			log.Warn("sweep failed; the next one begins anew", "error", err)
		case swept.Enqueued > 0:
			log.Warn("sweep found objects that were not loaded", "enqueued", swept.Enqueued, "objects", swept.Objects)
		}
	}
	if claim != nil {
		quick, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		claim.Release(quick)
	}
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
