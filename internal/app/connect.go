// Package app connects the stages to their adapters by the configuration.
package app

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/penstock/penstock/internal/clickhouse"
	"github.com/penstock/penstock/internal/config"
	"github.com/penstock/penstock/internal/llm"
	"github.com/penstock/penstock/internal/objstore"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/loader"
)

// OpenBucket opens the bucket of the configuration.
func OpenBucket(c config.Storage) *objstore.Bucket {
	return objstore.Open(objstore.Options{Endpoint: c.Endpoint, Region: c.Region, Bucket: c.Bucket,
		AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken, Profile: c.Profile, RoleARN: c.RoleARN,
		PathStyle: c.PathStyle, TLS: c.TLS.Config(slog.Default())})
}

// TableOptions are the options for ClickHouse, with at most conns connections.
func TableOptions(c config.ClickHouse, conns int) clickhouse.Options {
	return clickhouse.Options{Addresses: c.Addresses, Database: c.Database, User: c.User, Password: c.Password,
		TLS: c.TLS.Config(slog.Default()), Timeout: time.Duration(c.Timeout), Conns: conns}
}

// OpenTable opens ClickHouse. It connects at the first use.
func OpenTable(c config.ClickHouse, conns int) *clickhouse.DB {
	db, err := clickhouse.Open(TableOptions(c, conns))
	if err != nil {
		panic(err) // the driver rejects combinations of options that no configuration leads to
	}
	return db
}

// openLoading is OpenTable for loaders: it also counts the properties of events.
func openLoading(p process, conns int) *clickhouse.DB {
	db := OpenTable(p.cfg.ClickHouse, conns)
	db.Catalogue(clickhouse.CatalogueOptions{Table: pipeline.Events.Name, Examples: p.cfg.ClickHouse.CatalogueExamples,
		Log: p.log, Metrics: p.reg})
	names, paths := llm.Marks()
	db.Omit(clickhouse.Omission{Table: pipeline.Events.Name, Columns: callColumns(), Names: names, Paths: paths})
	return db
}

// Source is where loaders and commands read objects from.
func Source(c config.Config, store *objstore.Bucket, db *clickhouse.DB) loader.Source {
	imports, _ := c.Mappings() // they were checked when the configuration was read
	maxRow := int(c.Receiver.MaxEvent)
	files := clickhouse.Files{DB: db, Endpoint: cmp.Or(c.ClickHouse.StorageEndpoint, c.Storage.Endpoint), MaxRow: maxRow,
		Region: c.Storage.Region, Bucket: c.Storage.Bucket, AccessKey: c.Storage.AccessKey, SecretKey: c.Storage.SecretKey,
		PathStyle: c.Storage.PathStyle}
	return loader.Source{Store: store, Imports: imports, Dir: c.Loader.Dir, MaxRow: maxRow, Files: files}
}

// CheckTables rejects tables that would count a resent chunk twice.
func CheckTables(ctx context.Context, db *clickhouse.DB) error {
	for _, spec := range pipeline.Specs() {
		if err := db.Check(ctx, spec.Name); err != nil {
			return err
		}
	}
	return nil
}
