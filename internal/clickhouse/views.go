package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
)

// SetView makes the view that of the query, and reports whether it was another.
// The hash of the query is the view's comment, for the server stores queries in
// its own words.
func (db *DB) SetView(ctx context.Context, name, query string) (changed bool, err error) {
	sum := sha256.Sum256([]byte(query))
	note := "penstock: sha256 " + hex.EncodeToString(sum[:])
	var was string
	if err := db.one(ctx, "read the comment of view "+name, []any{&was},
		"SELECT ifNull(anyOrNull(comment), '') FROM (SELECT comment FROM system.tables WHERE database = ? AND name = ?)",
		db.database, name); err != nil || was == note {
		return false, err
	}
	return true, db.exec(ctx, "replace view "+name,
		"CREATE OR REPLACE VIEW "+quoteName(name)+" AS "+query+" COMMENT "+quoteText(note))
}

// RefreshView creates the view TABLE_once again if its columns are no longer
// those of its table: ClickHouse stores the columns of `SELECT *` when a view is
// created.
func (db *DB) RefreshView(ctx context.Context, table string) (changed bool, err error) {
	view := table + "_once"
	var differ uint64
	if err := db.one(ctx, "read columns of "+table+" and "+view, []any{&differ}, `SELECT count() FROM (
		SELECT name, type FROM system.columns WHERE database = ? AND table IN (?, ?) AND default_kind != 'EPHEMERAL'
		GROUP BY name, type HAVING count() != 2)`, db.database, table, view); err != nil || differ == 0 {
		return false, err
	}
	var query, comment string
	if err := db.one(ctx, "read the query of view "+view, []any{&query, &comment},
		"SELECT as_select, comment FROM system.tables WHERE database = ? AND name = ?", db.database, view); err != nil {
		return false, err
	}
	return true, db.exec(ctx, "create view "+view+" again",
		"CREATE OR REPLACE VIEW "+quoteName(view)+" AS "+query+" COMMENT "+quoteText(comment))
}
