package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/penstock/penstock/internal/app"
	"github.com/penstock/penstock/internal/operate"
	"github.com/penstock/penstock/internal/retry"
	"github.com/penstock/penstock/internal/show"
	"github.com/penstock/penstock/internal/version"
)

func runLoad(ctx context.Context, s streams, args []string) error {
	fs := newFlags(s, "load", "Takes notifications from the queue and loads the objects that they name into ClickHouse.\nSIGTERM: takes no more, finishes what it has begun, leaves.")
	path := configFlag(fs)
	if err := parseFlags(fs, args); err != nil {
		return err
	}
	cfg, err := readConfig(*path)
	if err != nil {
		return err
	}
	log, err := app.NewLogger(s.err, cfg.Process)
	if err != nil {
		return err
	}
	limitMemory(loadMemory, log)
	reg := newRegistry()
	isolated := isolation(*path, loaderName(cfg), s.err)
	out, err := buildOutlet(cfg, isolated, log, reg)
	if err != nil {
		return err
	}
	defer out.close()
	ops := newOperator(cfg, log)
	ops.isolated = isolated
	defer ops.close()
	var checked atomic.Bool
	ready := func() error {
		if ctx.Err() != nil {
			return errors.New("draining")
		}
		if !checked.Load() {
			return errors.New("the tables could not be checked yet")
		}
		for _, l := range out.loaders {
			if st := l.Stats(); st.Error != "" {
				return errors.New(st.Error)
			}
		}
		return nil
	}
	adm, err := listenAdmin(cfg.Admin, reg, ops, readiness{ready: ready}, func() operate.RoleStatus {
		st := operate.RoleStatus{Role: "load", Version: version.Current().Version}
		for _, l := range out.loaders {
			st.Loaders = append(st.Loaders, l.Stats())
		}
		return st
	})
	if err != nil {
		return err
	}
	adminCtx, stopAdmin := context.WithCancel(context.Background())
	defer stopAdmin()
	var admins errgroup.Group
	admins.Go(func() error { return adm.run(adminCtx) })

	// A server that is away is waited for; a table that would count twice is not.
	for attempt := 1; ; attempt++ {
		if err = app.CheckTables(ctx, out.db); err == nil || retry.ClassOf(err) != retry.Outage {
			break
		}
		log.Warn("the tables cannot be checked; trying again", "error", err)
		if retry.Sleep(ctx, retry.Backoff{Min: 500 * time.Millisecond, Max: 15 * time.Second}.Delay(attempt)) != nil {
			return nil
		}
	}
	if err != nil {
		return err
	}
	checked.Store(true)
	if out.reports != nil {
		if err := out.reports.start(); err != nil {
			log.Error("failures of loads are not reported to the errors pipeline", "error", err)
		}
	}
	log.Info("loading", "admin", adm.listener.Addr().String(), "queue", show.URL(cfg.Queue.URL), "clickhouse", cfg.ClickHouse.Addresses)

	var g errgroup.Group
	for _, l := range out.loaders {
		g.Go(func() error { return l.Run(ctx) })
	}
	for _, sweep := range out.sweeps {
		g.Go(func() error { sweep(ctx); return nil })
	}
	err = errors.Join(g.Wait(), out.stopReports())
	stopAdmin()
	err = errors.Join(err, admins.Wait())
	if err == nil {
		log.Info("drained: every load that was begun is finished")
	}
	return err
}
