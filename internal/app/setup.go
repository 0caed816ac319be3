package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	sqlfiles "github.com/penstock/penstock/infra/clickhouse"
	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/llm"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/show"
)

// Setup creates bucket, notification rules, streams and tables, or brings them up to date. It writes on w what it did,
// a line a part.
func Setup(ctx context.Context, cfg config.Config, w io.Writer) error {
	quick, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if cfg.Storage.Notify != "none" {
		if err := setupQueue(quick, cfg.Queue, w); err != nil {
			return err
		}
	}
	if err := setupBucket(quick, cfg.Storage, w); err != nil {
		return err
	}
	return setupTables(ctx, cfg, w)
}

func setupTables(ctx context.Context, cfg config.Config, w io.Writer) error {
	// Copying tables of an earlier version may take hours.
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

func setupQueue(ctx context.Context, c config.Queue, w io.Writer) error {
	q, err := OpenQueue(c, "penstock-setup", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer q.Close()
	quick, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := q.Ping(quick); err != nil {
		return explainQueue(c, err)
	}
	if err := q.Setup(ctx, pipeline.Specs()); err != nil {
		return explainQueue(c, err)
	}
	_, err = fmt.Fprintf(w, "streams        ok  %s\n", show.URL(c.URL))
	return err
}

func setupBucket(ctx context.Context, c config.Storage, w io.Writer) error {
	bucket := OpenBucket(c)
	if err := bucket.Create(ctx); err != nil {
		return explainStorage(c, err)
	}
	fmt.Fprintf(w, "bucket         ok  %s\n", c.Bucket)
	if c.Notify != "storage" || c.NotifyARN == "" {
		return nil
	}
	arns := map[string]string{}
	for _, spec := range pipeline.Specs() {
		arns[spec.Name] = strings.ReplaceAll(c.NotifyARN, "{PIPELINE}", strings.ToUpper(spec.Name))
	}
	if err := bucket.Notify(ctx, pipeline.Specs(), arns); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "notifications  ok  %s\n", c.NotifyARN)
	return err
}

// setupConfigured brings views, columns and prices to what the configuration and this version say.
func setupConfigured(ctx context.Context, cfg config.Config, db *clickhouse.DB, w io.Writer) error {
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
	for _, spec := range pipeline.Specs() {
		if _, err := db.RefreshView(ctx, spec.Name); err != nil {
			return err
		}
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

// setupCalls creates the view llm_calls and the columns that it reads.
func setupCalls(ctx context.Context, db *clickhouse.DB, w io.Writer) error {
	var columns []clickhouse.Computed
	for _, c := range llm.Columns() {
		columns = append(columns, clickhouse.Computed(c))
	}
	changed, err := db.SetComputed(ctx, pipeline.Events.Name, columns)
	if err != nil {
		return err
	}
	if len(changed) > 0 {
		fmt.Fprintf(w, "columns        ok  %s: set %s\n", pipeline.Events.Name, strings.Join(changed, ", "))
	}
	replaced, err := db.SetView(ctx, llm.CallsViewName, llm.CallsView())
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

// SetupAnalyst makes a role that reads the views for people, and writes on w what it ran.
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

// setupCatalogue creates the SQL functions that read properties of several types, and drops the catalogue's examples
// if the configuration wants none.
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

// materializeWait is how long setup watches while the server writes new columns into old parts.
const materializeWait = 20 * time.Second

func setupColumns(ctx context.Context, columns []clickhouse.Column, db *clickhouse.DB, w io.Writer) error {
	table := pipeline.Events.Name
	added, err := db.AddColumns(ctx, table, columns)
	if err != nil {
		return err
	}
	if len(added) > 0 {
		fmt.Fprintf(w, "columns        ok  %s: added %s\n", table, strings.Join(added, ", "))
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
