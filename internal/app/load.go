package app

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/outagelog"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/version"
	"github.com/penstock/penstock/loader"
	"github.com/penstock/penstock/receiver/tap"
)

// Load is the role that receives notifications and loads the objects that they name into ClickHouse.
type Load struct {
	cfg      config.Config
	log      *slog.Logger
	reg      *prometheus.Registry
	outlet   *outlet
	bucket   *bucketWatch
	isolated *loader.Isolation
	draining atomic.Bool
	checked  atomic.Bool // the tables
}

// NewLoad makes a loader. isolated loads suspicious objects.
func NewLoad(cfg config.Config, isolated *loader.Isolation, log *slog.Logger) (*Load, error) {
	reg := newRegistry()
	p := newProcess(cfg, log, reg)
	p.trace("load", LoaderName(cfg))
	out, err := newOutlet(p, isolated)
	if err != nil {
		p.tracer.Close()
		return nil, err
	}
	return &Load{cfg: cfg, log: log, reg: reg, outlet: out, bucket: newBucketWatch(p), isolated: isolated}, nil
}

// Run loads until ctx ends. Then it finishes the loads that it has begun.
func (l *Load) Run(ctx context.Context) error {
	limitMemory(loadMemory, l.log)
	defer l.outlet.tracer.Close()
	defer l.outlet.close()
	defer context.AfterFunc(ctx, func() { l.draining.Store(true) })()
	ops, closeOps := NewOperator(l.cfg, l.isolated, l.log)
	defer closeOps()
	ops.Tap = &tap.Tap{} // of redrives
	adm, err := listenAdmin(l.cfg.Admin, operate.API{Operator: ops, Metrics: l.reg, Ready: l.ready, Status: l.status},
		l.log)
	if err != nil {
		return err
	}
	adminCtx, stopAdmin := context.WithCancel(context.Background())
	defer stopAdmin()
	var admins errgroup.Group
	admins.Go(func() error { return adm.run(adminCtx) })
	admins.Go(func() error { l.bucket.run(adminCtx); return nil })
	admins.Go(func() error { l.outlet.ledger.run(adminCtx); return nil })
	if err := l.check(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if l.outlet.reports != nil {
		if err := l.outlet.reports.start(); err != nil {
			l.log.Error("load failures are not reported to the errors pipeline", "error", err)
		}
	}
	l.log.Info("loading", "admin", adm.listener.Addr().String(), "queue", queueText(l.cfg),
		"clickhouse", l.cfg.ClickHouse.Addresses)

	var g errgroup.Group
	for _, loads := range l.outlet.loaders {
		g.Go(func() error { return loads.Run(ctx) })
	}
	for _, sweep := range l.outlet.sweeps {
		g.Go(func() error { sweep(ctx); return nil })
	}
	err = errors.Join(g.Wait(), l.outlet.stopReports())
	stopAdmin()
	err = errors.Join(err, admins.Wait())
	if err == nil {
		l.log.Info("drained: every load that was begun is finished")
	}
	return err
}

// check checks the tables. It waits for a server that does not answer, and rejects a table that would count twice.
func (l *Load) check(ctx context.Context) error {
	backoff := retry.Backoff{Min: 500 * time.Millisecond, Max: 15 * time.Second}
	outage := outagelog.New(l.log, outagelog.Messages{Start: "tables cannot be checked; no object is loaded",
		Still: "tables still cannot be checked", End: "tables are checked"})
	for attempt := 1; ; attempt++ {
		err := CheckTables(ctx, l.outlet.db)
		if err == nil {
			outage.Works()
			l.checked.Store(true)
			return nil
		}
		err = explainTable(l.cfg.ClickHouse, err)
		if retry.ClassOf(err) != retry.Outage {
			return err
		}
		outage.Failed(err)
		if err := retry.Sleep(ctx, backoff.Delay(attempt)); err != nil {
			return err
		}
	}
}

func (l *Load) status() operate.RoleStatus {
	st := operate.RoleStatus{Role: "load", Version: version.Current().Version, Bucket: l.bucket.problem()}
	for _, loads := range l.outlet.loaders {
		st.Loaders = append(st.Loaders, loads.Stats())
	}
	return st
}

// ready returns why nothing is loaded now.
func (l *Load) ready() error {
	if l.draining.Load() {
		return errors.New("draining")
	}
	if !l.checked.Load() {
		return errors.New("the tables could not be checked yet")
	}
	for _, st := range l.status().Loaders {
		if st.Error != "" {
			return errors.New(st.Error)
		}
	}
	return nil
}
