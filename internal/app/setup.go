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
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if cfg.Storage.Notify != "none" {
		if err := setupQueue(ctx, cfg.Queue, w); err != nil {
			return err
		}
	}
	if err := setupBucket(ctx, cfg.Storage, w); err != nil {
		return err
	}
	applied, err := clickhouse.Migrate(ctx, TableOptions(cfg.ClickHouse, 2), sqlfiles.Files)
	if err != nil {
		return fmt.Errorf("%w (clickhouse.addresses is %s)", err, strings.Join(cfg.ClickHouse.Addresses, ","))
	}
	db := OpenTable(cfg.ClickHouse, 2)
	defer db.Close()
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
		return err
	}
	if err := q.Setup(ctx, pipeline.Specs()); err != nil {
		return fmt.Errorf("%w (queue.url is %s)", err, show.URL(c.URL))
	}
	_, err = fmt.Fprintf(w, "streams        ok  %s\n", show.URL(c.URL))
	return err
}

func setupBucket(ctx context.Context, c config.Storage, w io.Writer) error {
	bucket := OpenBucket(c)
	if err := bucket.Create(ctx); err != nil {
		return fmt.Errorf("%w (storage.endpoint is %q; what is above is done: run setup again when the store is there)",
			err, show.URL(c.Endpoint))
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
	replaced, err := db.SetView(ctx, llm.CallsViewName, llm.CallsView())
	if err != nil {
		return err
	}
	if replaced {
		fmt.Fprintf(w, "views          ok  %s: replaced\n", llm.CallsViewName)
	}
	columns, err := cfg.TableColumns()
	if err != nil {
		return err
	}
	added, err := db.AddColumns(ctx, pipeline.Events.Name, columns)
	if err != nil {
		return fmt.Errorf("clickhouse.columns: %w", err)
	}
	if len(added) > 0 {
		fmt.Fprintf(w, "columns        ok  %s: added %s\n", pipeline.Events.Name, strings.Join(added, ", "))
	}
	for _, spec := range pipeline.Specs() {
		if _, err := db.RefreshView(ctx, spec.Name); err != nil {
			return err
		}
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
