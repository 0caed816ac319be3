package clickhouse

import (
	"context"
	"fmt"
)

// TableStatus is what a table and the ledger say of a pipeline.
type TableStatus struct {
	Rows              uint64 `json:"rows"`      // before merges have collapsed resends
	Newest            int64  `json:"newest_ms"` // received_at of the newest event loaded, 0: none
	Objects           uint64 `json:"objects_loaded"`
	ObjectsLastMinute uint64 `json:"objects_loaded_last_minute"`
	RowsLastMinute    uint64 `json:"rows_loaded_last_minute"`
	Loading           uint64 `json:"objects_loading"` // begun, not finished
	Dead              uint64 `json:"dead_letters"`
	Refused           uint64 `json:"rows_refused"` // by the table, in all
}

// TableStatus asks the ledger, which is small, for all but the number of rows.
func (db *DB) TableStatus(ctx context.Context, table string) (TableStatus, error) {
	var s TableStatus
	err := db.conn.QueryRow(ctx, `SELECT countIf(status = 'loaded'), countIf(status IN ('loading', 'failed')), countIf(status = 'dead'), sum(length(refused)),
		countIf(status = 'loaded' AND finished_at > now64(3) - 60), sumIf(rows, status = 'loaded' AND finished_at > now64(3) - 60),
		maxIf(toUnixTimestamp64Milli(received_at), status = 'loaded')
		FROM loads FINAL WHERE pipeline = ?`, table).
		Scan(&s.Objects, &s.Loading, &s.Dead, &s.Refused, &s.ObjectsLastMinute, &s.RowsLastMinute, &s.Newest)
	if err != nil {
		return s, fmt.Errorf("read ledger: %w", class(err))
	}
	var rows *uint64
	if err := db.conn.QueryRow(ctx, "SELECT total_rows FROM system.tables WHERE database = ? AND name = ?", db.database, table).Scan(&rows); err != nil {
		return s, fmt.Errorf("read table %s: %w", table, class(err))
	}
	if rows != nil {
		s.Rows = *rows
	}
	return s, nil
}

// RunStatus counts what one run of generated traffic has brought; the run's
// name begins its sessions' ids.
type RunStatus struct {
	Rows, Distinct, Objects uint64
}

// RunStatus asks the table. since bounds received_at from below, in ms.
func (db *DB) RunStatus(ctx context.Context, table, run string, since int64) (RunStatus, error) {
	var s RunStatus
	err := db.conn.QueryRow(ctx, "SELECT count(), uniqExact(event_id), uniqExact(object) FROM "+quoteName(table)+
		" WHERE startsWith(session_id, ?) AND received_at >= fromUnixTimestamp64Milli(?)", run+"-", since).Scan(&s.Rows, &s.Distinct, &s.Objects)
	if err != nil {
		return s, fmt.Errorf("count rows of run %s: %w", run, class(err))
	}
	return s, nil
}

// Merges is how many merges the server is at now, of all tables.
func (db *DB) Merges(ctx context.Context) (n uint64, err error) {
	if err := db.conn.QueryRow(ctx, "SELECT count() FROM system.merges").Scan(&n); err != nil {
		return 0, fmt.Errorf("read merges: %w", class(err))
	}
	return n, nil
}

// DiskUse is what a table takes on disk.
type DiskUse struct {
	Parts   uint64
	Bytes   int64
	Columns []ColumnUse // the largest first
}

// ColumnUse is what a column takes on disk, compressed.
type ColumnUse struct {
	Name  string
	Bytes int64
}

// DiskUse asks for the table's active parts.
func (db *DB) DiskUse(ctx context.Context, table string) (u DiskUse, err error) {
	err = db.conn.QueryRow(ctx, "SELECT count(), toInt64(sum(bytes_on_disk)) FROM system.parts WHERE active AND database = ? AND table = ?", db.database, table).
		Scan(&u.Parts, &u.Bytes)
	if err != nil {
		return u, fmt.Errorf("read parts of %s: %w", table, class(err))
	}
	rows, err := db.conn.Query(ctx, "SELECT column, toInt64(sum(column_bytes_on_disk)) AS bytes FROM system.parts_columns WHERE active AND database = ? AND table = ? GROUP BY column ORDER BY bytes DESC, column",
		db.database, table)
	if err != nil {
		return u, fmt.Errorf("read columns of %s: %w", table, class(err))
	}
	defer rows.Close()
	for rows.Next() {
		var c ColumnUse
		if err := rows.Scan(&c.Name, &c.Bytes); err != nil {
			return u, fmt.Errorf("read columns of %s: %w", table, class(err))
		}
		u.Columns = append(u.Columns, c)
	}
	return u, class(rows.Err())
}
