package app

import (
	"context"
	"errors"
	"time"

	"github.com/penstock/penstock/internal/operate"
)

// lateRollups is how often days before yesterday are computed at most. Some events of every hour are late, and would
// otherwise cause all days to be computed again and again.
const lateRollups = time.Hour

// rollups adds the periodic refresh of rollups, if the configuration wants one.
func (o *outlet) rollups() {
	every := time.Duration(o.cfg.ClickHouse.RollupsEvery)
	if every == 0 {
		return
	}
	o.sweeps = append(o.sweeps, func(ctx context.Context) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := o.refreshRollups(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, operate.ErrClaimLost) {
				o.log.Error("rollups were not refreshed", "error", err)
			}
		}
	})
}

func (o *outlet) refreshRollups(ctx context.Context) error {
	all, err := operate.Rollups(o.cfg)
	if err != nil {
		return err
	}
	claim, held, err := o.store.Claim(ctx, operate.RollupsClaim, o.name, operate.RollupsClaimTTL)
	if err != nil || !held {
		return err
	}
	options := operate.RefreshOptions{Table: o.db, Late: lateRollups,
		Done: func(name string, day time.Time, rows uint64, took time.Duration) error {
			o.log.Info("day of rollup computed", "rollup", name, "day", day.Format(time.DateOnly), "rows", rows,
				"ms", took.Milliseconds())
			return nil
		}}
	return operate.WhileHeld(ctx, claim, func(ctx context.Context) error {
		var failed []error
		for _, r := range all {
			failed = append(failed, operate.RefreshRollup(ctx, r, options))
		}
		return errors.Join(failed...)
	})
}
