package clickhouse

import (
	"context"
	"fmt"
)

// RefreshView creates the view TABLE_once again if its columns are no longer
// those of its table: ClickHouse stores the columns of `SELECT *` when a view is
// created.
func (db *DB) RefreshView(ctx context.Context, table string) (changed bool, err error) {
	view := table + "_once"
	var differ uint64
	if err := db.conn.QueryRow(ctx, `SELECT count() FROM (
		SELECT name, type FROM system.columns WHERE database = ? AND table IN (?, ?) AND default_kind != 'EPHEMERAL'
		GROUP BY name, type HAVING count() != 2)`, db.database, table, view).Scan(&differ); err != nil {
		return false, fmt.Errorf("read columns of %s and %s: %w", table, view, class(err))
	}
	if differ == 0 {
		return false, nil
	}
	var query string
	row := db.conn.QueryRow(ctx, "SELECT as_select FROM system.tables WHERE database = ? AND name = ?", db.database,
		view)
	if err := row.Scan(&query); err != nil {
		return false, fmt.Errorf("read the query of view %s: %w", view, class(err))
	}
	if err := db.conn.Exec(ctx, "CREATE OR REPLACE VIEW "+quoteName(view)+" AS "+query); err != nil {
		return false, fmt.Errorf("create view %s again: %w", view, class(err))
	}
	return true, nil
}
