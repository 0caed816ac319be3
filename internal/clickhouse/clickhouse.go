// Package clickhouse is the adapter to ClickHouse: the tables' set-up and
// check, inserts, and the ledger. Errors are classed here, once.
package clickhouse

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/penstock/penstock/internal/clickhouse/native"
	"github.com/penstock/penstock/internal/retry"
)

// Options are how to reach the server.
type Options struct {
	Addresses []string // host:port of the native protocol; tried in order
	Database  string
	User      string
	Password  string
	TLS       *tls.Config   // nil: none
	Timeout   time.Duration // of an insert, and of a dial
	Conns     int           // open at once, at most
}

// DB is a pool of connections to one database.
type DB struct {
	conn     driver.Conn
	natives  *native.Client
	columns  sync.Map // bool by table: see columnar
	opts     Options
	database string
}

// Open makes the pool; it does not connect.
func Open(opts Options) (*DB, error) {
	o := &clickhouse.Options{
		Addr:         opts.Addresses,
		Auth:         clickhouse.Auth{Database: opts.Database, Username: opts.User, Password: opts.Password},
		DialTimeout:  min(opts.Timeout, 10*time.Second),
		ReadTimeout:  opts.Timeout,
		MaxOpenConns: opts.Conns,
		MaxIdleConns: opts.Conns,
		Compression:  &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		ClientInfo:   clickhouse.ClientInfo{Products: []struct{ Name, Version string }{{"penstock", "1"}}},
	}
	o.TLS = opts.TLS
	conn, err := clickhouse.Open(o)
	if err != nil {
		return nil, fmt.Errorf("open clickhouse: %w", err)
	}
	return &DB{conn: conn, opts: opts, database: opts.Database, natives: native.NewClient(native.Options{
		Addresses: opts.Addresses, Database: opts.Database, User: opts.User, Password: opts.Password, TLS: opts.TLS,
		Timeout: opts.Timeout})}, nil
}

// Close ends all connections.
func (db *DB) Close() error { return errors.Join(db.natives.Close(), db.conn.Close()) }

// Ping asks for one answer.
func (db *DB) Ping(ctx context.Context) error { return class(db.conn.Ping(ctx)) }

// Migrate creates the database where it is missing and applies the files that
// are not recorded yet; it returns their names. A file that was changed after
// it was applied is an error: a new file must say what changes. Where a table of
// a file is gone, that file and those behind it are applied again: each must be
// one that can be.
func Migrate(ctx context.Context, opts Options, files fs.FS) ([]string, error) {
	outside := opts
	outside.Database = "default"
	def, err := Open(outside)
	if err != nil {
		return nil, err
	}
	defer def.Close()
	if err := def.conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(opts.Database)); err != nil {
		return nil, fmt.Errorf("create database %s: %w", opts.Database, class(err))
	}
	db, err := Open(opts)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var applied []string
	again := false // a table is gone: it is made anew, and what later files add to it
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return applied, err
		}
		sum := sha256.Sum256(text)
		hash := hex.EncodeToString(sum[:])
		if i > 0 { // the first creates the record itself, and can always be run again
			var was string
			err := db.conn.QueryRow(ctx, "SELECT ifNull(anyOrNull(toString(sha256)), '') FROM (SELECT sha256 FROM migrations FINAL WHERE name = ?)", name).Scan(&was)
			if err != nil {
				return applied, fmt.Errorf("read migrations: %w", class(err))
			}
			if was == hash {
				whole, err := db.whole(ctx, string(text))
				if err != nil {
					return applied, err
				}
				again = again || !whole
				if !again {
					continue
				}
				was = ""
			}
			if was != "" {
				return applied, fmt.Errorf("%s was changed after it was applied (recorded sha256 %.12s, now %.12s)", name, was, hash)
			}
		}
		for n, statement := range statements(string(text)) {
			if err := db.conn.Exec(ctx, statement); err != nil {
				return applied, fmt.Errorf("%s, statement %d: %w", name, n+1, class(err))
			}
		}
		if i == 0 {
			continue
		}
		if err := db.conn.Exec(ctx, "INSERT INTO migrations (name, sha256) VALUES (?, ?)", name, hash); err != nil {
			return applied, fmt.Errorf("record %s: %w", name, class(err))
		}
		applied = append(applied, name)
	}
	return applied, nil
}

// statements cuts a file at each semicolon that ends a line.
func statements(text string) []string {
	var all []string
	for _, s := range regexp.MustCompile(`;[ \t]*(\n|$)`).Split(text, -1) {
		lines := slices.DeleteFunc(strings.Split(s, "\n"), func(line string) bool {
			line = strings.TrimSpace(line)
			return line == "" || strings.HasPrefix(line, "--")
		})
		if len(lines) > 0 {
			all = append(all, s)
		}
	}
	return all
}

var created = regexp.MustCompile(`(?i)CREATE (?:TABLE|VIEW) IF NOT EXISTS (\w+)`)

// whole tells whether all tables and views of a file are there.
func (db *DB) whole(ctx context.Context, text string) (bool, error) {
	for _, m := range created.FindAllStringSubmatch(text, -1) {
		var n uint64
		if err := db.conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = ? AND name = ?", db.database, m[1]).Scan(&n); err != nil {
			return false, fmt.Errorf("read tables: %w", class(err))
		}
		if n == 0 {
			return false, nil
		}
	}
	return true, nil
}

var windowSetting = regexp.MustCompile(`non_replicated_deduplication_window\s*=\s*(\d+)`)

// Check refuses a table in which an insert that is sent twice would be there
// twice: without a deduplication window ClickHouse ignores the token, without a word.
func (db *DB) Check(ctx context.Context, table string) error {
	var engine, create string
	rows, err := db.conn.Query(ctx, "SELECT engine, create_table_query FROM system.tables WHERE database = ? AND name = ?", db.database, table)
	if err != nil {
		return fmt.Errorf("check table %s: %w", table, class(err))
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return fmt.Errorf("check table %s: %w", table, class(err))
		}
		return fmt.Errorf("check table %s.%s: it does not exist; run `penstock setup`", db.database, table)
	}
	if err := rows.Scan(&engine, &create); err != nil {
		return fmt.Errorf("check table %s: %w", table, class(err))
	}
	if strings.HasPrefix(engine, "Replicated") || strings.HasPrefix(engine, "Shared") {
		return nil // their window is 10000 blocks by default
	}
	m := windowSetting.FindStringSubmatch(create)
	if n, _ := strconv.Atoi(append(m, "", "")[1]); n > 0 {
		return nil
	}
	return fmt.Errorf("check table %s.%s: non_replicated_deduplication_window is not set, so a repeated insert would count twice; run: ALTER TABLE %s.%s MODIFY SETTING non_replicated_deduplication_window = 10000",
		db.database, table, quoteName(db.database), quoteName(table))
}

func quoteName(s string) string { return "`" + strings.ReplaceAll(s, "`", "\\`") + "`" }

// Codes of ClickHouse's ErrorCodes.cpp that say something about the data.
// What a column computed from the data makes of it is of them: a cast, a
// constraint, an enum.
var permanentCodes = []int32{6, 25, 26, 27, 33, 38, 41, 53, 69, 70, 72, 117, 128, 130, 131, 153, 190, 321, 349, 376, 395, 407, 467, 469,
	632, 636, 675, 676, 691, 760}

// outageCodes are those that surely speak of the server or the set-up: memory,
// timeouts, too many parts or queries, read-only, no such table or column, access.
var outageCodes = []int32{16, 47, 60, 81, 159, 160, 164, 202, 203, 209, 210, 225, 241, 242, 243, 252, 279, 319, 425, 439, 497, 516, 696, 999}

// fileCodes speak of the server's files. They are an outage where the disk is
// broken, and an object's own where it is of so many paths and types that the server
// has no descriptors left for their files; so they stand in neither list.
var fileCodes = []int32{74, 75, 76, 77, 78, 79, 82, 88, 1000, 1001}

// class decides once what kind of failure an error is. Whatever is not about
// the data is the server's or the set-up's: nobody's object is at fault.
func class(err error) error {
	if err == nil {
		return nil
	}
	code, said := codeOf(err)
	switch {
	case said && slices.Contains(permanentCodes, code):
		return retry.AsCode(retry.Permanent, int(code), err)
	case said:
		return retry.AsCode(retry.Outage, int(code), err)
	case errors.Is(err, context.Canceled):
		return err
	}
	return retry.As(retry.Outage, err)
}

// classInsert is class for an insert, where a code of neither list may speak of
// the data as well: a computed column can throw anything.
func classInsert(err error) error {
	if code, said := codeOf(err); said && !slices.Contains(permanentCodes, code) && !slices.Contains(outageCodes, code) {
		return retry.AsCode(retry.Unknown, int(code), err)
	}
	return class(err)
}

// codeOf returns the server's code.
func codeOf(err error) (int32, bool) {
	if ex, ok := errors.AsType[*clickhouse.Exception](err); ok {
		return ex.Code, true
	}
	return 0, false
}
