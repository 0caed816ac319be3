package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/pipeline"
)

const loadColumns = "key, etag, generation, toString(status), pipeline, rows, bytes, chunk_rows, chunk_bytes, attempts, error, loader, received_at, started_at, finished_at"

func scanLoad(row interface{ Scan(...any) error }) (l pipeline.Load, err error) {
	var status string
	err = row.Scan(&l.Key, &l.ETag, &l.Generation, &status, &l.Pipeline, &l.Rows, &l.Bytes, &l.ChunkRows, &l.ChunkBytes, &l.Attempts, &l.Error, &l.Loader,
		&l.Received, &l.Started, &l.Finished)
	l.Loaded = status == "loaded"
	return l, err
}

// Load reads an object's entry in the ledger; ok is false where there is none.
func (db *DB) Load(ctx context.Context, key string) (l pipeline.Load, ok bool, err error) {
	l, err = scanLoad(db.conn.QueryRow(ctx, "SELECT "+loadColumns+" FROM loads FINAL WHERE key = ?", key))
	if errors.Is(err, sql.ErrNoRows) {
		return pipeline.Load{}, false, nil
	}
	if err != nil {
		return pipeline.Load{}, false, fmt.Errorf("read ledger: %w", class(err))
	}
	return l, true, nil
}

// Loads calls each with the entries of keys from first up to and with last, in
// the order of the keys.
func (db *DB) Loads(ctx context.Context, first, last string, each func(pipeline.Load) error) error {
	rows, err := db.conn.Query(ctx, "SELECT "+loadColumns+" FROM loads FINAL WHERE key >= ? AND key <= ? ORDER BY key", first, last)
	if err != nil {
		return fmt.Errorf("read ledger: %w", class(err))
	}
	defer rows.Close()
	for rows.Next() {
		l, err := scanLoad(rows)
		if err != nil {
			return fmt.Errorf("read ledger: %w", class(err))
		}
		if err := each(l); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read ledger: %w", class(err))
	}
	return nil
}

// SaveLoad writes an entry. One that has come further stays the one that counts.
func (db *DB) SaveLoad(ctx context.Context, l pipeline.Load) error {
	status, rank := "loading", uint64(1)
	if l.Loaded {
		status, rank = "loaded", 2
	}
	version := uint64(l.Generation)<<32 | rank<<24 | uint64(min(l.Attempts, 1<<24-1))
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0}))
	batch, err := db.conn.PrepareBatch(ctx, "INSERT INTO loads (key, etag, generation, status, pipeline, rows, bytes, chunk_rows, chunk_bytes, attempts, error, loader, received_at, started_at, finished_at, version)")
	if err != nil {
		return fmt.Errorf("write ledger: %w", class(err))
	}
	if err := batch.Append(l.Key, l.ETag, l.Generation, status, l.Pipeline, l.Rows, l.Bytes, l.ChunkRows, l.ChunkBytes, l.Attempts, l.Error, l.Loader,
		l.Received, l.Started, l.Finished, version); err != nil {
		batch.Abort()
		return fmt.Errorf("write ledger: %w", err)
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("write ledger: %w", class(err))
	}
	return nil
}
