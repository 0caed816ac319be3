package clickhouse

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/pipeline"
)

// aroundDay bounds received_at, so that only the partitions in question are
// read: a batch that began on a day was received on that day or the next.
const aroundDay = " AND toDate(received_at) BETWEEN toDate(?) - 1 AND toDate(?) + 2"

// CountRows counts, as they stand before merges, the rows of each object of a
// day from key first up to and with last.
func (db *DB) CountRows(ctx context.Context, table, first, last string, day time.Time, each func(object string, rows, distinct uint64)) error {
	d := day.Format("2006-01-02")
	rows, err := db.conn.Query(ctx, "SELECT toString(object) AS o, count(), uniqExact(object_row) FROM "+quoteName(table)+
		" WHERE object >= ? AND object <= ?"+aroundDay+" GROUP BY o", first, last, d, d)
	if err != nil {
		return fmt.Errorf("count rows of %s: %w", table, class(err))
	}
	defer rows.Close()
	for rows.Next() {
		var object string
		var n, distinct uint64
		if err := rows.Scan(&object, &n, &distinct); err != nil {
			return fmt.Errorf("count rows of %s: %w", table, class(err))
		}
		each(object, n, distinct)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("count rows of %s: %w", table, class(err))
	}
	return nil
}

// RowsOf calls each with every object_row of an object that began on a day.
func (db *DB) RowsOf(ctx context.Context, table, object string, day time.Time, each func(row uint32)) error {
	d := day.Format("2006-01-02")
	rows, err := db.conn.Query(ctx, "SELECT DISTINCT object_row FROM "+quoteName(table)+" WHERE object = ?"+aroundDay, object, d, d)
	if err != nil {
		return fmt.Errorf("read rows of %s: %w", object, class(err))
	}
	defer rows.Close()
	for rows.Next() {
		var row uint32
		if err := rows.Scan(&row); err != nil {
			return fmt.Errorf("read rows of %s: %w", object, class(err))
		}
		each(row)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read rows of %s: %w", object, class(err))
	}
	return nil
}

// Known counts how many of the ids, each of its own, are in the table.
func (db *DB) Known(ctx context.Context, table string, ids []pipeline.UUID) (uint64, error) {
	list := make([]uuid.UUID, len(ids))
	for i, id := range ids {
		list[i] = uuid.UUID(id)
	}
	var known []uuid.UUID
	if err := db.conn.QueryRow(ctx, "SELECT groupUniqArray(event_id) FROM "+quoteName(table)+" WHERE event_id IN (?)", list).Scan(&known); err != nil {
		return 0, fmt.Errorf("look events up in %s: %w", table, class(err))
	}
	have := make(map[uuid.UUID]bool, len(known))
	for _, id := range known {
		have[id] = true
	}
	var n uint64
	for _, id := range list { // an id that is asked for twice counts twice
		if have[id] {
			n++
		}
	}
	return n, nil
}
