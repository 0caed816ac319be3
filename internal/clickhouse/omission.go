package clickhouse

import (
	"context"
	"slices"
	"strings"

	"github.com/penstock/penstock/internal/clickhouse/native"
)

// Omission says when computed columns of a table have their default values: in rows
// that have none of the names, and no property at any of the paths. Then the loader
// sends these values, and the server need not compute them: it takes the server 50 ms to
// analyze the expressions, for each insert, and 5 ms for all else of a small one.
type Omission struct {
	Table        string
	Columns      []Computed
	Names, Paths []string
}

// Omit lets inserts send default values where the omission says so.
func (db *DB) Omit(o Omission) { db.omission = &o }

// known reports whether the server accepts values for the columns, and has them as this
// version defines them. It is asked before each insert, because another version of
// setup may change them at any time. Without an answer the server has to compute.
func (o *Omission) known(ctx context.Context, db *DB) bool {
	var settings uint64
	var notes map[string]string
	if err := db.one(ctx, "read computed columns of "+o.Table, []any{&settings, &notes},
		"SELECT (SELECT count() FROM system.settings WHERE name = 'insert_allow_materialized_columns'),"+
			" mapFromArrays(groupArray(name), groupArray(comment)) FROM system.columns"+
			" WHERE database = ? AND table = ? AND default_kind = 'MATERIALIZED'", db.database, o.Table); err != nil {
		return false
	}
	return settings == 1 && !slices.ContainsFunc(o.Columns, func(c Computed) bool { return notes[c.Name] != c.note() })
}

// defaults returns the columns of default values for a block, and their names; none
// unless all rows have default values.
func (b *Block) defaults(ctx context.Context) (columns []native.Column, names string, err error) {
	o := b.db.omission
	if o == nil || o.Table != b.table || b.columns.Has(o.Names, o.Paths) || !o.known(ctx, b.db) {
		return nil, "", nil
	}
	var all []string
	for _, c := range o.Columns {
		column, err := native.Default(c.Name, c.Type, b.columns.Rows())
		if err != nil {
			return nil, "", err
		}
		columns, all = append(columns, column), append(all, quoteName(c.Name))
	}
	return columns, ", " + strings.Join(all, ", "), nil
}
