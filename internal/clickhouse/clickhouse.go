// Package clickhouse is the adapter to ClickHouse: migrations, inserts, the load ledger, and the operators' queries. It
// classifies errors.
package clickhouse

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/penstock/penstock/internal/clickhouse/native"
)

// Options describe the server and how to connect.
type Options struct {
	Addresses []string // host:port of the native protocol, tried in order
	Database  string
	User      string
	Password  string
	TLS       *tls.Config   // nil: none
	Timeout   time.Duration // of an insert, and of a dial
	Conns     int           // most open connections
}

// DB is a pool of connections to one database.
type DB struct {
	conn     driver.Conn
	natives  *native.Client
	columns  sync.Map // *native.Types by table: see columnar
	changed  changedDays
	settling time.Duration // see settled
	opts     Options
	database string

	catalogue *Catalogue // nil: no counting
	omission  *Omission  // nil: the server computes all computed columns
}

// Open returns a pool without connecting.
func Open(opts Options) (*DB, error) {
	conn, err := clickhouse.Open(&clickhouse.Options{
		Addr:         opts.Addresses,
		Auth:         clickhouse.Auth{Database: opts.Database, Username: opts.User, Password: opts.Password},
		TLS:          opts.TLS,
		DialTimeout:  min(opts.Timeout, 10*time.Second),
		ReadTimeout:  opts.Timeout,
		MaxOpenConns: opts.Conns,
		MaxIdleConns: opts.Conns,
		Compression:  &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		ClientInfo:   clickhouse.ClientInfo{Products: []struct{ Name, Version string }{{"penstock", "1"}}},
	})
	if err != nil {
		return nil, fmt.Errorf("open clickhouse: %w", err)
	}
	natives := native.NewClient(native.Options{Addresses: opts.Addresses, Database: opts.Database, User: opts.User,
		Password: opts.Password, TLS: opts.TLS, Timeout: opts.Timeout})
	return &DB{conn: conn, natives: natives, opts: opts, database: opts.Database, settling: settled(opts.Timeout)}, nil
}

// Close ends all connections.
func (db *DB) Close() error {
	if db.catalogue != nil {
		db.catalogue.close()
	}
	return errors.Join(db.natives.Close(), db.conn.Close())
}

// Ping checks that the server answers.
func (db *DB) Ping(ctx context.Context) error { return class(db.conn.Ping(ctx)) }

// each scans each row of a query into pointers, and calls row after each. Errors of the query are classified and begin
// with what.
func (db *DB) each(ctx context.Context, what string, into []any, row func() error, query string, args ...any) error {
	rows, err := db.conn.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", what, class(err))
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("%s: %w", what, class(err))
		}
		if err := row(); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, class(err))
	}
	return nil
}

// one scans the only row of a query. It returns sql.ErrNoRows if there is none.
func (db *DB) one(ctx context.Context, what string, into []any, query string, args ...any) error {
	err := db.conn.QueryRow(ctx, query, args...).Scan(into...)
	if err == nil || errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return fmt.Errorf("%s: %w", what, class(err))
}

// exec runs a statement.
func (db *DB) exec(ctx context.Context, what, statement string, args ...any) error {
	if err := db.conn.Exec(ctx, statement, args...); err != nil {
		return fmt.Errorf("%s: %w", what, class(err))
	}
	return nil
}

// insert sends the rows that fill appends as one block, synchronously.
func (db *DB) insert(ctx context.Context, what, statement string,
	fill func(row func(values ...any) error) error) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"async_insert": 0}))
	batch, err := db.conn.PrepareBatch(ctx, statement)
	if err != nil {
		return fmt.Errorf("%s: %w", what, class(err))
	}
	defer batch.Abort() // does nothing after Send
	if err := fill(batch.Append); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("%s: %w", what, class(err))
	}
	return nil
}

func quoteName(s string) string {
	return "`" + strings.NewReplacer(`\`, `\\`, "`", "\\`").Replace(s) + "`"
}

func quoteText(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
