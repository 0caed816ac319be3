package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/penstock/penstock/internal/pipeline"
)

// Expired returns which rows the table's TTL deletes. It ignores a TTL with a condition, or of columns other than
// received_at and timestamp: its rows cannot be predicted.
func (db *DB) Expired(ctx context.Context, table string) (x pipeline.Expiry, err error) {
	var engine string
	if err := db.one(ctx, "read the TTL of "+table, []any{&engine},
		"SELECT engine_full FROM system.tables WHERE database = ? AND name = ?", db.database, table); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return x, nil
		}
		return x, err
	}
	for _, expression := range deletions(engine) {
		for column, before := range map[string]*time.Time{"received_at": &x.Received, "timestamp": &x.Time} {
			t, err := db.expired(ctx, column, expression)
			if code, said := codeOf(err); said && code == unknownIdentifier {
				continue
			}
			if err != nil {
				return x, fmt.Errorf("evaluate the TTL %q of %s: %w", expression, table, class(err))
			}
			if t.After(*before) {
				*before = t
			}
		}
	}
	return x, nil
}

// expired finds the newest second of a column whose TTL has passed. It tries all hours since 1970, then the seconds of
// one hour.
func (db *DB) expired(ctx context.Context, column, ttl string) (time.Time, error) {
	newest := func(from time.Time, step time.Duration, n int64) (*int64, error) {
		var ms *int64
		err := db.conn.QueryRow(ctx, fmt.Sprintf("SELECT maxOrNull(toUnixTimestamp64Milli(%[1]s)) FROM"+
			" (SELECT fromUnixTimestamp64Milli(toInt64(%[2]d + number * %[3]d), 'UTC') AS %[1]s FROM numbers(%[4]d))"+
			" WHERE (%[5]s) <= now()", column, from.UnixMilli(), step.Milliseconds(), n, ttl)).Scan(&ms)
		return ms, err
	}
	const end = 999 // ms: the whole second has passed
	hour, err := newest(time.UnixMilli(end), time.Hour, time.Now().Unix()/3600+1)
	if err != nil || hour == nil {
		return time.Time{}, err
	}
	second, err := newest(time.UnixMilli(*hour), time.Second, 3600)
	if err != nil || second == nil {
		return time.Time{}, err
	}
	return time.UnixMilli(*second + 1).UTC(), nil
}

// deletions returns the TTL expressions of a table's engine that delete rows unconditionally. engine is as the server
// prints it.
func deletions(engine string) (all []string) {
	text := ttlOf(engine)
	for text != "" {
		part := text
		if to := outer(text, ","); to >= 0 {
			part, text = text[:to], text[to+1:]
		} else {
			text = ""
		}
		part = strings.TrimSuffix(strings.TrimSpace(part), " DELETE")
		other := false
		for _, word := range []string{" WHERE ", " TO ", " RECOMPRESS ", " GROUP BY ", " SET "} {
			other = other || outer(part, word) >= 0
		}
		if !other && part != "" {
			all = append(all, part)
		}
	}
	return all
}

// outer returns the index of the first occurrence of word outside of brackets and quotes in SQL; -1: none.
func outer(sql, word string) int {
	depth, quote := 0, byte(0)
	for i := 0; i < len(sql); i++ {
		c := sql[i]
		switch {
		case quote != 0 && c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case depth == 0 && strings.HasPrefix(sql[i:], word):
			return i
		case c == '\'' || c == '"' || c == '`':
			quote = c
		case c == '(' || c == '[':
			depth++
		case c == ')' || c == ']':
			depth--
		}
	}
	return -1
}
