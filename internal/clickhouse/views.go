package clickhouse

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// View is a view that setup creates. The server stores queries in its own spelling, so the view's comment ends with a
// hash of all fields.
type View struct {
	Name, Query, Comment string
	Columns              map[string]string // comments by column
}

func (v View) note() string {
	sum := sha256.Sum256(fmt.Append(nil, v))
	return v.Comment + " (penstock: sha256 " + hex.EncodeToString(sum[:8]) + ")"
}

// SetView creates or replaces the view, and reports whether it changed.
func (db *DB) SetView(ctx context.Context, v View) (changed bool, err error) {
	var was string
	if err := db.one(ctx, "read the comment of view "+v.Name, []any{&was},
		"SELECT ifNull(anyOrNull(comment), '') FROM (SELECT comment FROM system.tables WHERE database = ? AND name = ?)",
		db.database, v.Name); err != nil || was == v.note() {
		return false, err
	}
	// The hash is written last, so setup continues if it was killed in between.
	create := "CREATE OR REPLACE VIEW " + quoteName(v.Name) + " AS " + v.Query
	if err := db.exec(ctx, "replace view "+v.Name, create); err != nil {
		return false, err
	}
	if err := db.commentColumns(ctx, v.Name, v.Columns); err != nil {
		return false, err
	}
	return true, db.exec(ctx, "comment view "+v.Name, "ALTER TABLE "+quoteName(v.Name)+" MODIFY COMMENT "+
		quoteText(v.note()))
}

// commentColumns sets comments by column.
func (db *DB) commentColumns(ctx context.Context, table string, comments map[string]string) error {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(comments)) {
		all = append(all, "COMMENT COLUMN "+quoteName(name)+" "+quoteText(comments[name]))
	}
	if len(all) == 0 {
		return nil
	}
	return db.exec(ctx, "comment columns of "+table, "ALTER TABLE "+quoteName(table)+" "+strings.Join(all, ", "))
}

// mirrors maps each view to the table whose columns it has.
var mirrors = map[string]string{"events_once": "events", "errors_once": "errors", "users_by_day": "daily_users",
	"llm_by_day": "llm_daily"}

// MirrorColumns updates the columns of mirrors and their comments from the tables, and returns the names of changed
// views. ClickHouse stores the columns of `SELECT *` when a view is created, without comments. The views lack the
// columns of SetComputed, which only llm_calls reads.
func (db *DB) MirrorColumns(ctx context.Context) (changed []string, err error) {
	for _, view := range slices.Sorted(maps.Keys(mirrors)) {
		was, err := db.mirrored(ctx, view)
		if err != nil {
			return changed, err
		}
		want, err := db.mirrored(ctx, mirrors[view])
		if err != nil {
			return changed, err
		}
		if maps.Equal(was, want) {
			continue
		}
		if err := db.mirror(ctx, view, want); err != nil {
			return changed, err
		}
		changed = append(changed, view)
	}
	return changed, nil
}

// mirrored returns the columns that a view of a table has: types and comments by name.
func (db *DB) mirrored(ctx context.Context, table string) (all map[string][2]string, err error) {
	all = map[string][2]string{}
	var name, kind, comment string
	return all, db.each(ctx, "read columns of "+table, []any{&name, &kind, &comment}, func() error {
		all[name] = [2]string{kind, comment}
		return nil
	}, "SELECT name, type, comment FROM system.columns WHERE database = ? AND table = ? AND default_kind != 'EPHEMERAL'"+
		" AND NOT match(comment, ?)", db.database, table, computedNote)
}

func (db *DB) mirror(ctx context.Context, view string, columns map[string][2]string) error {
	var query, comment string
	if err := db.one(ctx, "read the query of view "+view, []any{&query, &comment},
		"SELECT as_select, comment FROM system.tables WHERE database = ? AND name = ?", db.database, view); err != nil {
		return err
	}
	if err := db.exec(ctx, "create view "+view+" again",
		"CREATE OR REPLACE VIEW "+quoteName(view)+" AS "+query+" COMMENT "+quoteText(comment)); err != nil {
		return err
	}
	comments := map[string]string{}
	for name, c := range columns {
		comments[name] = c[1]
	}
	return db.commentColumns(ctx, view, comments)
}
