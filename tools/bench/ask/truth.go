package ask

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"
)

// truthTables are plain tables with a typed column for each property that a question needs. They have each event once.
var truthTables = []string{
	`CREATE DATABASE truth`,
	`CREATE TABLE truth.events
(
    project LowCardinality(String), name LowCardinality(String), timestamp DateTime64(3, 'UTC'), event_id UUID,
    session_id String, user_id String, live Bool, properties String, paths Array(LowCardinality(String)),
    country LowCardinality(String), platform LowCardinality(String), app_version LowCardinality(String),
    difficulty LowCardinality(String), message String, level Nullable(Int64), score Nullable(Int64),
    rare Nullable(Int64), price Nullable(Float64)
)
ENGINE = MergeTree ORDER BY (project, name, timestamp)`,
	`CREATE TABLE truth.calls
(
    time DateTime64(3, 'UTC'), project LowCardinality(String), user_id String, session_id String,
    conversation String, model LowCardinality(String), input_tokens Int64, output_tokens Int64, latency_ms Int64,
    status LowCardinality(String), error String, cost_usd Nullable(Float64), input String
)
ENGINE = MergeTree ORDER BY (project, time)`,
}

// truthRows is the number of rows in an insert.
const truthRows = 100_000

// Truth fills the truth tables.
type Truth struct {
	conn clickhouse.Conn
	rows []Row
}

// OpenTruth creates the tables on a server.
func OpenTruth(ctx context.Context, s Server) (*Truth, error) {
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{s.Native},
		Auth:        clickhouse.Auth{Database: "default", Username: s.User, Password: s.Password},
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionLZ4}, ReadTimeout: 10 * time.Minute})
	if err != nil {
		return nil, err
	}
	for _, statement := range truthTables {
		if err := conn.Exec(ctx, statement); err != nil {
			return nil, errors.Join(fmt.Errorf("truth: %w", err), conn.Close())
		}
	}
	return &Truth{conn: conn}, nil
}

// Add adds a request's rows.
func (t *Truth) Add(ctx context.Context, rows []Row) error {
	if t.rows = append(t.rows, rows...); len(t.rows) < truthRows {
		return nil
	}
	return t.flush(ctx)
}

// Close inserts the remaining rows.
func (t *Truth) Close(ctx context.Context) error { return errors.Join(t.flush(ctx), t.conn.Close()) }

func (t *Truth) flush(ctx context.Context) error {
	var calls []Row
	for _, r := range t.rows {
		if r.Call != nil {
			calls = append(calls, r)
		}
	}
	err := errors.Join(t.insert(ctx, "truth.events", t.rows, eventColumns()),
		t.insert(ctx, "truth.calls", calls, callColumns()))
	clear(t.rows)
	t.rows = t.rows[:0]
	return err
}

func (t *Truth) insert(ctx context.Context, table string, rows []Row, columns []func([]Row) any) error {
	if len(rows) == 0 {
		return nil
	}
	batch, err := t.conn.PrepareBatch(ctx, "INSERT INTO "+table)
	if err != nil {
		return fmt.Errorf("%s: %w", table, err)
	}
	for i, column := range columns {
		if err := batch.Column(i).Append(column(rows)); err != nil {
			return errors.Join(fmt.Errorf("%s, column %d: %w", table, i, err), batch.Abort())
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("%s: %w", table, err)
	}
	return nil
}

// column creates a column of a table.
func column[T any](value func(*Row) T) func([]Row) any {
	return func(rows []Row) any {
		all := make([]T, len(rows))
		for i := range rows {
			all[i] = value(&rows[i])
		}
		return all
	}
}

// eventColumns are the columns of truth.events, in order.
func eventColumns() []func([]Row) any {
	return []func([]Row) any{
		column(func(r *Row) string { return r.Project }),
		column(func(r *Row) string { return r.Name }),
		column(func(r *Row) time.Time { return time.UnixMilli(r.Time).UTC() }),
		column(func(r *Row) uuid.UUID { return r.ID }),
		column(func(r *Row) string { return r.Session }),
		column(func(r *Row) string { return r.User }),
		column(func(r *Row) bool { return r.Live }),
		column(func(r *Row) string { return r.Properties }),
		column(func(r *Row) []string { return r.Paths }),
		column(func(r *Row) string { return r.Country }),
		column(func(r *Row) string { return r.Platform }),
		column(func(r *Row) string { return r.Version }),
		column(func(r *Row) string { return r.Difficulty }),
		column(func(r *Row) string { return r.Message }),
		column(func(r *Row) *int64 { return r.Level }),
		column(func(r *Row) *int64 { return r.Score }),
		column(func(r *Row) *int64 { return r.Rare }),
		column(func(r *Row) *float64 { return r.Price }),
	}
}

// callColumns are the columns of truth.calls, in order.
func callColumns() []func([]Row) any {
	return []func([]Row) any{
		column(func(r *Row) time.Time { return time.UnixMilli(r.Time).UTC() }),
		column(func(r *Row) string { return r.Project }),
		column(func(r *Row) string { return r.User }),
		column(func(r *Row) string { return r.Session }),
		column(func(r *Row) string { return r.Call.Conversation }),
		column(func(r *Row) string { return r.Call.Model }),
		column(func(r *Row) int64 { return r.Call.Input }),
		column(func(r *Row) int64 { return r.Call.Output }),
		column(func(r *Row) int64 { return r.Call.Latency }),
		column(func(r *Row) string {
			if r.Call.Error != "" {
				return "error"
			}
			return "ok"
		}),
		column(func(r *Row) string { return r.Call.Error }),
		column(func(r *Row) *float64 { return r.Call.Cost }),
		column(func(r *Row) string { return r.Call.Prompt }),
	}
}
