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

// Known counts how many of the events are in the table, by all of a row's
// identity: clients use one id under several names and times.
func (db *DB) Known(ctx context.Context, table string, events []pipeline.Identity) (uint64, error) {
	ids := make([]uuid.UUID, len(events))
	for i, e := range events {
		ids[i] = uuid.UUID(e.ID)
	}
	rows, err := db.conn.Query(ctx, "SELECT DISTINCT event_id, project, name, toUnixTimestamp64Milli(identity_time) FROM "+quoteName(table)+" WHERE event_id IN (?)", ids)
	if err != nil {
		return 0, fmt.Errorf("look events up in %s: %w", table, class(err))
	}
	defer rows.Close()
	have := map[pipeline.Identity]bool{}
	for rows.Next() {
		var id uuid.UUID
		var e pipeline.Identity
		if err := rows.Scan(&id, &e.Project, &e.Name, &e.Time); err != nil {
			return 0, fmt.Errorf("look events up in %s: %w", table, class(err))
		}
		e.ID = pipeline.UUID(id)
		have[e] = true
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("look events up in %s: %w", table, class(err))
	}
	var n uint64
	for _, e := range events { // one that is asked for twice counts twice
		if have[e] {
			n++
		}
	}
	return n, nil
}
