package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/penstock/penstock/internal/pipeline"
)

// loadColumns are those of an entry, in the order of scanLoad and SaveLoad.
var loadColumns = []string{"key", "etag", "generation", "status", "pipeline", "rows", "refused", "bytes", "chunk_rows", "chunk_bytes", "attempts", "failures", "unfinished",
	"code", "error", "loader", "job", "reading", "received_at", "first_fail", "started_at", "finished_at"}

var loadSelect = "SELECT " + strings.Replace(strings.Join(loadColumns, ", "), "status", "toString(status)", 1) + " FROM loads FINAL "

func scanLoad(row interface{ Scan(...any) error }) (l pipeline.Load, err error) {
	var status string
	err = row.Scan(&l.Key, &l.ETag, &l.Generation, &status, &l.Pipeline, &l.Rows, &l.Refused, &l.Bytes, &l.ChunkRows, &l.ChunkBytes, &l.Attempts, &l.Failures, &l.Unfinished,
		&l.Code, &l.Error, &l.Loader, &l.Job, &l.Reading, &l.Received, &l.FirstFail, &l.Started, &l.Finished)
	if err == nil {
		l.State, err = pipeline.ParseLoadState(status)
	}
	for _, t := range []*time.Time{&l.FirstFail, &l.Finished} {
		if t.Unix() <= 0 {
			*t = time.Time{}
		}
	}
	return l, err
}

// Load reads an object's entry in the ledger; ok is false where there is none.
func (db *DB) Load(ctx context.Context, key string) (l pipeline.Load, ok bool, err error) {
	l, err = scanLoad(db.conn.QueryRow(ctx, loadSelect+"WHERE key = ?", key))
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
	return db.loads(ctx, each, "WHERE key >= ? AND key <= ? ORDER BY key", first, last)
}

// Dead calls each with the entries of a pipeline that were given up, in the
// order of their keys.
func (db *DB) Dead(ctx context.Context, table string, each func(pipeline.Load) error) error {
	return db.loads(ctx, each, "WHERE pipeline = ? AND status = 'dead' ORDER BY key", table)
}

func (db *DB) loads(ctx context.Context, each func(pipeline.Load) error, where string, args ...any) error {
	rows, err := db.conn.Query(ctx, loadSelect+where, args...)
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
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0}))
	batch, err := db.conn.PrepareBatch(ctx, "INSERT INTO loads ("+strings.Join(loadColumns, ", ")+", version)")
	if err != nil {
		return fmt.Errorf("write ledger: %w", class(err))
	}
	first, finished := l.FirstFail, l.Finished
	for _, t := range []*time.Time{&first, &finished} {
		if t.IsZero() {
			*t = time.Unix(0, 0)
		}
	}
	if l.Refused == nil {
		l.Refused = []uint32{}
	}
	if err := batch.Append(l.Key, l.ETag, l.Generation, l.State.String(), l.Pipeline, l.Rows, l.Refused, l.Bytes, l.ChunkRows, l.ChunkBytes, l.Attempts, l.Failures, l.Unfinished,
		l.Code, l.Error, l.Loader, l.Job, l.Reading, l.Received, first, l.Started, finished, l.Version()); err != nil {
		batch.Abort()
		return fmt.Errorf("write ledger: %w", err)
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("write ledger: %w", class(err))
	}
	return nil
}
