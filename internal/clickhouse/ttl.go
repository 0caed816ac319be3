package clickhouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Expired returns the time before which the table's TTL deletes rows, by their
// received_at; zero if it deletes none. A TTL with a condition or of other columns is
// ignored: received_at alone does not tell which rows it deletes.
func (db *DB) Expired(ctx context.Context, table string) (before time.Time, err error) {
	var engine string
	if err := db.one(ctx, "read the TTL of "+table, []any{&engine},
		"SELECT engine_full FROM system.tables WHERE database = ? AND name = ?", db.database, table); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return before, nil
		}
		return before, err
	}
	for _, expression := range deletions(engine) {
		t, err := db.expired(ctx, expression)
		if code, said := codeOf(err); said && code == unknownIdentifier {
			continue
		}
		if err != nil {
			return before, fmt.Errorf("evaluate the TTL %q of %s: %w", expression, table, class(err))
		}
		if t.After(before) {
			before = t
		}
	}
	return before, nil
}

// expired finds the newest second of received_at for which a TTL has passed. It
// tries all hours since 1970, and then the seconds of one.
func (db *DB) expired(ctx context.Context, ttl string) (time.Time, error) {
	newest := func(from time.Time, step time.Duration, n int64) (*int64, error) {
		var ms *int64
		err := db.conn.QueryRow(ctx, fmt.Sprintf("SELECT maxOrNull(toUnixTimestamp64Milli(received_at)) FROM"+
			" (SELECT fromUnixTimestamp64Milli(toInt64(%d + number * %d), 'UTC') AS received_at FROM numbers(%d)) WHERE (%s) "+
			"<= now()",
			from.UnixMilli(), step.Milliseconds(), n, ttl)).Scan(&ms)
		return ms, err
	}
	const end = 999 // ms: all of a second has passed
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

// deletions returns the expressions by which a table's engine, as the server
// prints it, deletes rows whatever is in them.
func deletions(engine string) (all []string) {
	from := outer(engine, " TTL ")
	if from < 0 {
		return nil
	}
	text := engine[from+len(" TTL "):]
	if to := outer(text, " SETTINGS "); to >= 0 {
		text = text[:to]
	}
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

// outer returns the index of the first word in SQL outside of brackets and quotes; -1: none.
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
