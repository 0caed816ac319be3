package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/llm"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/provision"
	"github.com/penstock/penstock/internal/queue"
	"github.com/penstock/penstock/internal/show"
)

// Setup creates or updates bucket, queue, notification rules and tables. It writes a line for each part to w. A dry run
// changes nothing.
func Setup(ctx context.Context, cfg config.Config, dryRun bool, w io.Writer) error {
	plan := &provision.Plan{DryRun: dryRun, Print: func(s provision.Step) {
		fmt.Fprintf(w, "%-14s %s  %s\n", s.Subject, s.Mark, s.Text)
	}}
	quick, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := setupNotifications(quick, cfg, plan); err != nil {
		return err
	}
	if dryRun {
		return planTables(quick, cfg, plan)
	}
	return errors.Join(setupTables(ctx, cfg, w), plan.Err())
}

// planTables reports which migrations setup would apply.
func planTables(ctx context.Context, cfg config.Config, plan *provision.Plan) error {
	todo, err := clickhouse.Pending(ctx, TableOptions(cfg.ClickHouse, 1), sqlfiles.Files)
	if err != nil {
		return explainTable(cfg.ClickHouse, err)
	}
	name := cfg.ClickHouse.Database
	if len(todo) == 0 {
		plan.Found("tables", "%s: no migration to apply", name)
	} else if err := plan.Make(provision.Change{Subject: "tables", What: "applied " + strings.Join(todo, ", ") + " to " +
		name}); err != nil {
		return err
	}
	return explainTable(cfg.ClickHouse, planConfigured(ctx, cfg, plan))
}

// planConfigured reports which columns and rollups of the configuration setup would add or change.
func planConfigured(ctx context.Context, cfg config.Config, plan *provision.Plan) error {
	columns, err := cfg.TableColumns()
	if err != nil {
		return err
	}
	rollups, err := cfg.TableRollups()
	if err != nil {
		return err
	}
	exists, err := clickhouse.HasDatabase(ctx, TableOptions(cfg.ClickHouse, 1))
	if err != nil {
		return err
	}
	db, table := OpenTable(cfg.ClickHouse, 1), pipeline.Events.Name // it connects at the first question
	defer db.Close()
	missing, changed := columns, []clickhouse.Column(nil)
	if exists {
		if missing, changed, err = db.PlanColumns(ctx, table, columns); err != nil {
			return fmt.Errorf("clickhouse.columns: %w", err)
		}
	}
	var changes []provision.Change
	would := func(subject, format string, args ...any) {
		changes = append(changes, provision.Change{Subject: subject, What: fmt.Sprintf(format, args...)})
	}
	for _, c := range missing {
		would("columns", "added %s to %s", c.Name, table)
	}
	for _, c := range changed {
		would("columns", "changed how %s of %s is computed", c.Name, table)
	}
	for _, r := range rollups {
		absent := !exists
		if exists {
			if absent, err = db.PlanRollup(ctx, r); err != nil {
				return fmt.Errorf("clickhouse.rollups: %w", err)
			}
		}
		if absent {
			would("rollups", "created %s", r.Name)
		}
	}
	if len(changes) == 0 && exists {
		plan.Found("columns", "%s: columns and rollups are as configured", table)
	}
	for _, c := range changes {
		if err := plan.Make(c); err != nil {
			return err
		}
	}
	return nil
}

func setupTables(ctx context.Context, cfg config.Config, w io.Writer) error {
	// Copying an earlier version's tables may take hours.
	applied, err := clickhouse.Migrate(ctx, TableOptions(cfg.ClickHouse, 2), sqlfiles.Files, func(text string) {
		fmt.Fprintf(w, "tables         ..  %s\n", text)
	})
	if err != nil {
		return explainTable(cfg.ClickHouse, err)
	}
	db := OpenTable(cfg.ClickHouse, 2)
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := CheckTables(ctx, db); err != nil {
		return err
	}
	what := "up to date"
	if len(applied) > 0 {
		what = "applied " + strings.Join(applied, ", ")
	}
	fmt.Fprintf(w, "tables         ok  %s: %s\n", cfg.ClickHouse.Database, what)
	return setupConfigured(ctx, cfg, db, w)
}

// setupNotifications sets up queue, bucket, and the rules that connect them. MinIO needs the queue before its bucket
// gets rules.
func setupNotifications(ctx context.Context, cfg config.Config, plan *provision.Plan) error {
	q, err := OpenQueue(cfg, "penstock-setup", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if q != nil {
		defer q.Close()
		if err := setupQueue(ctx, q, plan); err != nil {
			return explainQueue(cfg, err)
		}
	}
	bucket := OpenBucket(cfg.Storage)
	if err := bucket.Setup(ctx, plan); err != nil {
		return explainStorage(cfg.Storage, err)
	}
	if !plan.DryRun {
		if err := bucket.Probe(ctx); errors.Is(err, objstore.ErrUnconditional) {
			plan.Warn("bucket", "%v", err)
		} else if refused, ok := errors.AsType[pipeline.RefusedError](err); ok {
			plan.Warn("bucket", "receivers need more rights, or another store: %v", refused)
		}
	}
	if q == nil || cfg.Storage.Notify != "storage" {
		return nil
	}
	return q.Subscribe(ctx, bucket, pipeline.Specs(), plan)
}

func setupQueue(ctx context.Context, q queue.Queue, plan *provision.Plan) error {
	quick, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := q.Ping(quick); err != nil {
		return err
	}
	return q.Setup(ctx, pipeline.Specs(), plan)
}

// setupConfigured updates views, columns and prices for this configuration and version.
func setupConfigured(ctx context.Context, cfg config.Config, db *clickhouse.DB, w io.Writer) error {
	if err := setupMerges(ctx, db, w); err != nil {
		return err
	}
	for _, spec := range pipeline.Specs() {
		if _, err := db.BoundPaths(ctx, spec.Name); err != nil {
			return err
		}
	}
	if err := setupCalls(ctx, db, w); err != nil {
		return err
	}
	if err := setupCatalogue(ctx, cfg, db, w); err != nil {
		return err
	}
	columns, err := cfg.TableColumns()
	if err != nil {
		return err
	}
	if err := setupColumns(ctx, columns, db, w); err != nil {
		return fmt.Errorf("clickhouse.columns: %w", err)
	}
	if _, err := db.MirrorColumns(ctx); err != nil {
		return err
	}
	if err := setupRollups(ctx, cfg, db, w); err != nil {
		return err
	}
	if err := db.SetDefiner(ctx, clickhouse.Readable); err != nil {
		return err
	}
	prices, err := cfg.TablePrices()
	if err != nil {
		return err
	}
	changed, err := db.SetPrices(ctx, prices)
	if err == nil && changed {
		fmt.Fprintf(w, "prices         ok  llm_prices: %d written, in place of those before\n", len(prices))
	}
	return err
}

// setupMerges sets cheap merges for new and existing tables.
func setupMerges(ctx context.Context, db *clickhouse.DB, w io.Writer) error {
	for _, spec := range pipeline.Specs() {
		set, err := db.SetMerges(ctx, spec.Name)
		if err != nil {
			return err
		}
		if len(set) > 0 {
			fmt.Fprintf(w, "merges         ok  %s: set %s\n", spec.Name, strings.Join(set, ", "))
		}
	}
	return nil
}

// callColumns are the computed columns that llm_calls reads.
func callColumns() (columns []clickhouse.Computed) {
	for _, c := range llm.Columns() {
		columns = append(columns, clickhouse.Computed(c))
	}
	return columns
}

// setupCalls creates the view llm_calls and the columns that it reads.
func setupCalls(ctx context.Context, db *clickhouse.DB, w io.Writer) error {
	changed, err := db.SetComputed(ctx, pipeline.Events.Name, callColumns())
	if err != nil {
		return err
	}
	if len(changed) > 0 {
		fmt.Fprintf(w, "columns        ok  %s: set %s\n", pipeline.Events.Name, strings.Join(changed, ", "))
	}
	replaced, err := db.SetView(ctx, clickhouse.View(llm.CallsView()))
	if err == nil && replaced {
		fmt.Fprintf(w, "views          ok  %s: replaced\n", llm.CallsViewName)
	}
	return err
}

// setupRollups creates the tables of the configuration's rollups.
func setupRollups(ctx context.Context, cfg config.Config, db *clickhouse.DB, w io.Writer) error {
	own, err := cfg.TableRollups()
	if err != nil {
		return err
	}
	for _, r := range own {
		created, err := db.CreateRollup(ctx, r)
		if err != nil {
			return fmt.Errorf("clickhouse.rollups: %w", err)
		}
		if created {
			fmt.Fprintf(w, "rollups        ok  created %s\n", r.Name)
		}
	}
	return nil
}

// SetupAnalyst creates a role that can read the views for people, and writes the statements to w.
func SetupAnalyst(ctx context.Context, cfg config.Config, a clickhouse.Analyst, w io.Writer) error {
	if err := a.Check(); err != nil {
		return err
	}
	db, err := clickhouse.Open(TableOptions(cfg.ClickHouse, 1))
	if err != nil {
		return err
	}
	defer db.Close()
	var own []string
	for _, r := range cfg.ClickHouse.Rollups {
		own = append(own, r.Name)
	}
	statements, err := db.SetAnalyst(ctx, a, own)
	if err != nil {
		return err
	}
	for _, s := range statements {
		fmt.Fprintf(w, "analyst        ok  %s\n", s)
	}
	_, err = fmt.Fprintf(w, "\nGive it to a user:\n\n  CREATE USER NAME IDENTIFIED BY 'PASSWORD' DEFAULT ROLE %s;\n"+
		"  GRANT %[1]s TO NAME;\n", a.Role)
	return err
}

// setupCatalogue creates the SQL functions for properties of several types. It deletes the catalogue's examples if the
// configuration wants none.
func setupCatalogue(ctx context.Context, cfg config.Config, db *clickhouse.DB, w io.Writer) error {
	created, others, err := db.SetFunctions(ctx, clickhouse.Functions)
	if err != nil {
		return err
	}
	if len(created) > 0 {
		fmt.Fprintf(w, "functions      ok  created %s\n", strings.Join(created, ", "))
	}
	for _, name := range others {
		fmt.Fprintf(w, "functions      !!  the server has another function %s, which stays as it is: "+
			"%[1]s(…) of the documentation does not work here\n", name)
	}
	if cfg.ClickHouse.CatalogueExamples {
		return nil
	}
	return db.DropExamples(ctx)
}

// materializeWait is how long setup waits while the server writes new columns into old parts.
const materializeWait = 20 * time.Second

func setupColumns(ctx context.Context, columns []clickhouse.Column, db *clickhouse.DB, w io.Writer) error {
	table := pipeline.Events.Name
	added, changed, err := db.AddColumns(ctx, table, columns)
	if err != nil {
		return err
	}
	if len(added) > 0 {
		fmt.Fprintf(w, "columns        ok  %s: added %s\n", table, strings.Join(added, ", "))
	}
	if len(changed) > 0 {
		fmt.Fprintf(w, "columns        ok  %s: changed how %s is computed; ClickHouse computes older rows anew\n", table,
			strings.Join(changed, ", "))
	}
	parts, left, err := db.MaterializeColumns(ctx, table, columns, materializeWait)
	switch {
	case err != nil:
		return err
	case left > 0:
		_, err = fmt.Fprintf(w, "columns        ..  %s: %d of %d older parts are still to be written; until then queries of "+
			"them are slow. Watch: SELECT command, parts_to_do, latest_fail_reason FROM system.mutations WHERE NOT is_done\n",
			table, left, parts)
	case parts > 0:
		_, err = fmt.Fprintf(w, "columns        ok  %s: written into %s\n", table, show.Plural(parts, "older part"))
	}
	return err
}
