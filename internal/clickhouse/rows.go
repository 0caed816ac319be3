package clickhouse

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/pipeline"
)

// receivedBetween bounds received_at, in ms since 1970. The table's granules have an index on it, and merged parts know
// their first and last.
const receivedBetween = " AND received_at >= fromUnixTimestamp64Milli(?) AND received_at <= fromUnixTimestamp64Milli(?)"

const aDay = 24 * 60 * 60 * 1000 // ms

// aroundDay returns the arguments of receivedBetween for objects that began on a day. Their events were received on
// that day, the next one, or slightly earlier or later.
func aroundDay(day time.Time) (from, to int64) {
	return day.AddDate(0, 0, -1).UnixMilli(), day.AddDate(0, 0, 3).UnixMilli() - 1
}

// partitionKey is the tables' PARTITION BY as the server prints it. It equals pipeline.Partition.
const partitionKey = "if((identity_time >= toDateTime64('2010-01-01', 3, 'UTC'))" +
	" AND (identity_time < toDateTime64('2060-01-01', 3, 'UTC')), toMonday(toDate(identity_time)), toDate(0))"

// Present returns the partitions that have any of these rows. If rows names no partition, it returns one that has some.
// A chunk is one block in one partition, so one row proves all of it. (Merges may have removed others as a client's
// resend.)
func (db *DB) Present(ctx context.Context, table string, rows pipeline.Rows) (map[int64]bool, error) {
	query := "SELECT DISTINCT _partition_id FROM " + quoteName(table) +
		" WHERE object = ? AND generation = ? AND object_row >= ? AND object_row < ?" + receivedBetween
	args := []any{rows.Object, rows.Generation, rows.First, rows.End, rows.Received[0], rows.Received[1]}
	if len(rows.Partitions) > 0 {
		ids := make([]string, len(rows.Partitions))
		for i, p := range rows.Partitions {
			ids[i] = pipeline.Millis(p).Format(partitionID)
		}
		query += " AND _partition_id IN (?)"
		args = append(args, ids)
	}
	there := map[int64]bool{}
	var id string
	// With a limit, the server stops once it has found a row of each partition.
	err := db.each(ctx, "ask "+table+" for rows of "+rows.Object, []any{&id}, func() error {
		day, err := time.Parse(partitionID, id)
		there[day.UnixMilli()] = true
		return err
	}, query+fmt.Sprintf(" LIMIT %d", max(1, len(rows.Partitions))), args...)
	return there, err
}

// partitionID is the form of _partition_id.
const partitionID = "20060102"

// Newest returns the highest generation of an object's rows; exists is false if it has none. received bounds
// received_at, in ms.
func (db *DB) Newest(ctx context.Context, table, object string, received [2]int64) (generation uint32, exists bool,
	err error) {
	var n uint64
	err = db.one(ctx, "ask "+table+" for rows of "+object, []any{&n, &generation},
		"SELECT count(), max(generation) FROM "+quoteName(table)+" WHERE object = ?"+receivedBetween,
		object, received[0]-aDay, received[1]+aDay) // a clock may have been turned back
	return generation, n > 0, err
}

// Objects returns the objects with keys from first through last that have rows in the table.
func (db *DB) Objects(ctx context.Context, table, first, last string) (map[string]bool, error) {
	all := map[string]bool{}
	var object string
	err := db.each(ctx, "ask "+table+" for objects", []any{&object}, func() error {
		all[object] = true
		return nil
	}, "SELECT DISTINCT toString(object) FROM "+quoteName(table)+" WHERE object >= ? AND object <= ?", first, last)
	return all, err
}

// CountRows counts the rows of each object of a day before merges, for keys from first through last.
func (db *DB) CountRows(ctx context.Context, table, first, last string, day time.Time,
	each func(object string, rows, distinct uint64)) error {
	from, to := aroundDay(day)
	var object string
	var n, distinct uint64
	return db.each(ctx, "count rows of "+table, []any{&object, &n, &distinct}, func() error {
		each(object, n, distinct)
		return nil
	}, "SELECT toString(object) AS o, count(), uniqExact(object_row) FROM "+quoteName(table)+
		" WHERE object >= ? AND object <= ?"+receivedBetween+" GROUP BY o", first, last, from, to)
}

// RowsOf calls each with every object_row of an object that began on a day.
func (db *DB) RowsOf(ctx context.Context, table, object string, day time.Time, each func(row uint32)) error {
	from, to := aroundDay(day)
	var row uint32
	return db.each(ctx, "read rows of "+object, []any{&row}, func() error {
		each(row)
		return nil
	}, "SELECT DISTINCT object_row FROM "+quoteName(table)+" WHERE object = ?"+receivedBetween, object, from, to)
}

// Known counts how many of the events are in the table, by a row's whole identity: clients reuse one id with several
// names and times.
func (db *DB) Known(ctx context.Context, table string, events []pipeline.Identity) (n uint64, err error) {
	ids := make([]uuid.UUID, len(events))
	for i, e := range events {
		ids[i] = uuid.UUID(e.ID)
	}
	have := map[pipeline.Identity]bool{}
	var id uuid.UUID
	var e pipeline.Identity
	err = db.each(ctx, "look events up in "+table, []any{&id, &e.Project, &e.Name, &e.Time}, func() error {
		e.ID = pipeline.UUID(id)
		have[e] = true
		return nil
	}, "SELECT DISTINCT event_id, project, name, toUnixTimestamp64Milli(identity_time) FROM "+quoteName(table)+
		" WHERE event_id IN (?)", ids)
	for _, e := range events { // a repeated event counts each time
		if have[e] {
			n++
		}
	}
	return n, err
}

// DeleteOlder deletes an object's rows of earlier generations. When it returns, no query sees them. The user needs
// ALTER DELETE.
func (db *DB) DeleteOlder(ctx context.Context, table, object string, generation uint32) error {
	ctx, cancel := context.WithTimeout(ctx, db.opts.Timeout)
	defer cancel()
	// A mutation reads every part that its condition does not exclude, so name the partitions.
	var partitions []string
	if err := db.one(ctx, "ask "+table+" for rows of "+object, []any{&partitions},
		"SELECT groupUniqArray(_partition_id) FROM "+quoteName(table)+
			" WHERE object = ? AND generation < ?", object, generation); err != nil || len(partitions) == 0 {
		return err
	}
	if table == rollupSource {
		if err := db.markWhere(ctx, "object = ? AND generation < ?", object, generation); err != nil {
			return err
		}
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"lightweight_deletes_sync": 2, "mutations_sync": 2}))
	return db.exec(ctx, "delete rows of "+object+" from "+table, "DELETE FROM "+quoteName(table)+
		" WHERE object = ? AND generation < ? AND _partition_id IN (?)", object, generation, partitions)
}

// Place is a row of an event and its origin.
type Place struct {
	Object     string    `json:"object"`
	Row        uint32    `json:"object_row"`
	EventID    string    `json:"event_id"`
	Table      string    `json:"table"`
	Project    string    `json:"project"`
	Name       string    `json:"name"`
	Timestamp  time.Time `json:"timestamp"`
	ReceivedAt time.Time `json:"received_at"`
	Receiver   string    `json:"receiver"`
	Seq        uint64    `json:"seq"`
}

// FindEvent lists the rows of an event. There are several if a client sent it again and no merge has removed them yet.
func (db *DB) FindEvent(ctx context.Context, table string, id pipeline.UUID) ([]Place, error) {
	return db.places(ctx, table, "event_id = ?", uuid.UUID(id))
}

// FindRow returns a row of an object.
func (db *DB) FindRow(ctx context.Context, table, object string, row uint32) ([]Place, error) {
	return db.places(ctx, table, "object = ? AND object_row = ?", object, row)
}

func (db *DB) places(ctx context.Context, table, where string, args ...any) (all []Place, err error) {
	p := Place{Table: table}
	err = db.each(ctx, "find in "+table, []any{&p.Object, &p.Row, &p.EventID, &p.Project, &p.Name, &p.Timestamp,
		&p.ReceivedAt, &p.Receiver, &p.Seq}, func() error {
		all = append(all, p)
		return nil
	}, "SELECT toString(object), object_row, toString(event_id), project, name, timestamp, received_at, receiver, seq"+
		" FROM "+quoteName(table)+" WHERE "+where+" ORDER BY received_at LIMIT 1000", args...)
	return all, err
}
