package operate

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/llm"
	"github.com/penstock/penstock/internal/retry"
)

// Rollups returns Penstock's own rollups and the configured ones.
func Rollups(cfg config.Config) ([]clickhouse.Rollup, error) {
	prices, err := cfg.TablePrices()
	if err != nil {
		return nil, err
	}
	var all []clickhouse.Rollup
	for _, r := range []clickhouse.Rollup{
		{Name: "daily_users"}, {Name: "daily_sessions"},
		// A span and its parent, or Langfuse events about one call, may lie on both sides of midnight.
		{Name: "llm_daily", Around: true, Depend: fmt.Sprint(llm.CallsView().Query, prices)},
	} {
		if r.Select, err = sqlfiles.Rollup(r.Name); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	own, err := cfg.TableRollups()
	for _, r := range own {
		if slices.ContainsFunc(all, func(shipped clickhouse.Rollup) bool { return shipped.Name == r.Name }) {
			return nil, fmt.Errorf("clickhouse.rollups: Penstock has a rollup %s already; choose another name", r.Name)
		}
	}
	return append(all, own...), err
}

// RollupTable stores rollups.
type RollupTable interface {
	RollupDays(ctx context.Context, r clickhouse.Rollup) ([]clickhouse.RollupDay, error)
	RollupBatches(ctx context.Context, r clickhouse.Rollup, days []time.Time) ([][]time.Time, error)
	RefreshRollup(ctx context.Context, r clickhouse.Rollup, days []time.Time) (rows []uint64, err error)
	RollupDone(ctx context.Context, r clickhouse.Rollup) error
}

// RefreshOptions select the days of rollups to compute.
type RefreshOptions struct {
	Table RollupTable
	Days  []time.Time   // empty: all due days
	Late  time.Duration // least time between two computations of a day before yesterday
	Done  func(name string, day time.Time, rows uint64, took time.Duration) error
}

// ErrClaimLost ends a refresh whose claim another process has taken.
var ErrClaimLost = errors.New("another process has begun to refresh rollups")

// isAhead reports whether a day is in the future, from clients' clocks. It is due when it comes.
func isAhead(d clickhouse.RollupDay) bool { return time.Until(d.Day) > 48*time.Hour }

// RefreshRollup computes days of a rollup, newest first, because people look at these.
func RefreshRollup(ctx context.Context, r clickhouse.Rollup, o RefreshOptions) error {
	days, left := o.Days, len(o.Days) > 0
	if !left {
		all, err := o.Table.RollupDays(ctx, r)
		if err != nil {
			return err
		}
		for _, d := range all {
			late := time.Since(d.Day) > 48*time.Hour && time.Since(d.Refreshed) < o.Late
			left = left || d.Due && (late || isAhead(d))
			if d.Due && !late && !isAhead(d) {
				days = append(days, d.Day)
			}
		}
	}
	batches, err := o.Table.RollupBatches(ctx, r, days)
	if err != nil {
		return err
	}
	for _, batch := range slices.Backward(batches) {
		began := time.Now()
		rows, err := o.Table.RefreshRollup(ctx, r, batch)
		if err != nil {
			return err
		}
		for i, day := range slices.Backward(batch) {
			if err := o.Done(r.Name, day, rows[i], time.Since(began)/time.Duration(len(batch))); err != nil {
				return err
			}
		}
	}
	if left {
		return nil
	}
	return o.Table.RollupDone(ctx, r)
}

// RollupsClaim is the claim that a process holds while it refreshes rollups, and its TTL if the process is killed.
const (
	RollupsClaim    = "rollups"
	RollupsClaimTTL = time.Minute
)

// WhileHeld calls refresh, and renews the claim meanwhile, because a statement may take longer than its TTL. Then it
// releases the claim. If another process takes the claim, refresh's context ends, and the error is ErrClaimLost.
func WhileHeld(ctx context.Context, claim Claim, refresh func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var beat sync.WaitGroup
	beat.Go(func() {
		for retry.Sleep(ctx, RollupsClaimTTL/4) == nil {
			// A renewal that is cut off would leave a claim that nobody can release.
			whole, done := context.WithTimeout(context.WithoutCancel(ctx), RollupsClaimTTL/4)
			held, err := claim.Renew(whole)
			done()
			if err == nil && !held {
				cancel(ErrClaimLost)
			}
		}
	})
	err := refresh(ctx)
	if lost := context.Cause(ctx); errors.Is(lost, ErrClaimLost) {
		err = lost
	}
	cancel(nil)
	beat.Wait()
	_ = claim.Release(context.WithoutCancel(ctx)) // else it expires
	return err
}

// rollupParams select rollups.
type rollupParams struct {
	Name string `json:"name,omitempty" param:"name" usage:"only this rollup"`
}

type refreshParams struct {
	Name string `json:"name,omitempty" param:"name" usage:"only this rollup"`
	From string `json:"from,omitempty" param:"from" usage:"compute all days from this one on, such as 2026-11-01, even if they have not changed"`
	To   string `json:"to,omitempty" param:"to" usage:"the last of these days (default: today)"`
}

// rollupItem is a rollup in `penstock rollups list`.
type rollupItem struct {
	Name      string    `json:"name"`
	Days      int       `json:"days"`
	First     string    `json:"first,omitempty"`
	Last      string    `json:"last,omitempty"`
	Rows      uint64    `json:"rows"`
	Due       int       `json:"due"` // days changed since
	Refreshed time.Time `json:"refreshed,omitzero"`
}

// refreshedDay is a line of `penstock rollups refresh`.
type refreshedDay struct {
	Name    string  `json:"name"`
	Day     string  `json:"day"`
	Rows    uint64  `json:"rows"`
	Seconds float64 `json:"seconds"`
}

func rollupOperations() []Operation {
	return []Operation{{
		Name: "rollups list", method: http.MethodGet, path: "/v1/rollups", params: &rollupParams{}, item: rollupItem{},
		Short: "list rollups: their days, rows and days to compute",
		About: "DUE are days whose events changed since the rollup computed them, or may have. Loaders compute\n" +
			"them every clickhouse.rollups_every.",
		header: []string{"NAME", ">DAYS", "FIRST", "LAST", ">ROWS", ">DUE", "REFRESHED"},
		row: rows(func(r *rollupItem) []string {
			at := "never"
			if !r.Refreshed.IsZero() {
				at = r.Refreshed.UTC().Format("2006-01-02 15:04:05")
			}
			return []string{r.Name, strconv.Itoa(r.Days), r.First, r.Last, strconv.FormatUint(r.Rows, 10),
				strconv.Itoa(r.Due), at}
		}),
		run: runs(listRollups),
	}, {
		Name: "rollups refresh", method: http.MethodPost, path: "/v1/rollups/refresh", params: &refreshParams{},
		item:  refreshedDay{},
		Short: "compute the days of rollups that changed, or those of a range",
		About: "Each day is replaced as a whole. Use --from after rows of events were deleted or inserted by hand.\n" +
			"Days of which the table's TTL has deleted events are computed only with --from.",
		header: []string{"NAME", "DAY", ">ROWS", ">SECONDS"},
		row: rows(func(d *refreshedDay) []string {
			return []string{d.Name, d.Day, strconv.FormatUint(d.Rows, 10), fmt.Sprintf("%.1f", d.Seconds)}
		}),
		run: runs(refreshRollups),
	}}
}

// chosenRollups returns all rollups, or the one with the name.
func (o *Operator) chosenRollups(name string) ([]clickhouse.Rollup, error) {
	all, err := Rollups(o.Config)
	if err != nil || name == "" {
		return all, err
	}
	var names []string
	for _, r := range all {
		if r.Name == name {
			return []clickhouse.Rollup{r}, nil
		}
		names = append(names, r.Name)
	}
	return nil, Usagef("no rollup %q; there are %s", name, strings.Join(names, ", "))
}

func listRollups(ctx context.Context, o *Operator, p *rollupParams, out sink) error {
	all, err := o.chosenRollups(p.Name)
	if err != nil {
		return err
	}
	for _, r := range all {
		days, err := o.Table.RollupDays(ctx, r)
		if err != nil {
			return err
		}
		item := rollupItem{Name: r.Name}
		for _, d := range days {
			if d.Due && !isAhead(d) {
				item.Due++
			}
			if d.Refreshed.IsZero() {
				continue
			}
			item.Days++
			item.Rows += d.Rows
			if item.First == "" {
				item.First = d.Day.Format(time.DateOnly)
			}
			item.Last = d.Day.Format(time.DateOnly)
			if d.Refreshed.After(item.Refreshed) {
				item.Refreshed = d.Refreshed
			}
		}
		if err := out.item(item); err != nil {
			return err
		}
	}
	return nil
}

func (p *refreshParams) check(o *Operator) error {
	if _, err := o.chosenRollups(p.Name); err != nil {
		return err
	}
	_, err := p.days()
	return err
}

func refreshRollups(ctx context.Context, o *Operator, p *refreshParams, out sink) error {
	all, err := o.chosenRollups(p.Name)
	if err != nil {
		return err
	}
	days, err := p.days()
	if err != nil {
		return err
	}
	claim, held, err := o.Claim(ctx, RollupsClaim, o.Name, RollupsClaimTTL)
	if err != nil {
		return err
	}
	if !held {
		return fmt.Errorf("rollups are being refreshed by %s; run the command again when it has ended", claim.Holder())
	}
	options := RefreshOptions{Table: o.Table, Days: days,
		Done: func(name string, day time.Time, rows uint64, took time.Duration) error {
			return out.item(refreshedDay{name, day.Format(time.DateOnly), rows, took.Seconds()})
		}}
	return WhileHeld(ctx, claim, func(ctx context.Context) error {
		for _, r := range all {
			if err := RefreshRollup(ctx, r, options); err != nil {
				return err
			}
		}
		return nil
	})
}

// days returns the named days; nil: all changed days.
func (p *refreshParams) days() (days []time.Time, err error) {
	if p.From == "" && p.To == "" {
		return nil, nil
	}
	if p.From == "" {
		return nil, Usagef("--to needs --from")
	}
	from, err := time.Parse(time.DateOnly, p.From)
	if err != nil {
		return nil, Usagef("--from %q is not a day, such as 2026-11-01", p.From)
	}
	to := time.Now()
	if p.To != "" {
		if to, err = time.Parse(time.DateOnly, p.To); err != nil {
			return nil, Usagef("--to %q is not a day, such as 2026-11-30", p.To)
		}
	}
	if from.After(to) {
		return nil, Usagef("--from %s is after --to %s", p.From, to.Format(time.DateOnly))
	}
	for d := from; !d.After(to); d = d.AddDate(0, 0, 1) {
		days = append(days, d)
	}
	return days, nil
}
