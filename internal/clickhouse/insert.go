package clickhouse

import (
	"context"
	"fmt"
	"iter"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/pipeline"
)

const insertColumns = "event_id, project, name, timestamp, identity_time, received_at, session_id, user_id, receiver, seq, properties, context, object, object_row, generation"

// insertSettings are sent with every insert, for servers' defaults differ.
func insertSettings(token string) clickhouse.Settings {
	return clickhouse.Settings{
		// A ReplacingMergeTree would merge each block within itself, row by row: five
		// times the cost of the insert. FINAL and merges collapse resends all the same.
		"optimize_on_insert":         0,
		"async_insert":               0, // 1 by default since 26: it would acknowledge before the rows are there
		"insert_deduplicate":         1,
		"insert_deduplication_token": token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		"max_insert_threads":                       1,       // one block stays one block
		"min_insert_block_size_rows":               1 << 30, // and parts become one
		"min_insert_block_size_bytes":              1 << 40,
		"max_partitions_per_insert_block":          1, // a chunk is cut at the day's end: one part, so all or nothing
		"throw_on_max_partitions_per_insert_block": 1,
		// A string stays the string that was sent, whatever it looks like.
		"input_format_try_infer_dates":                        0,
		"input_format_try_infer_datetimes":                    0,
		"input_format_try_infer_integers":                     1,
		"input_format_json_try_infer_numbers_from_strings":    0,
		"input_format_json_read_bools_as_strings":             0,
		"input_format_json_read_numbers_as_strings":           0,
		"input_format_json_infer_incomplete_types_as_strings": 1, // an empty array has no type of its own
	}
}

// insertText lets the server parse the JSON. The events come in parts, which
// it puts together to one block (min_insert_block_size_rows).
func (db *DB) insertText(ctx context.Context, table, token, object string, generation uint32, events iter.Seq2[[]pipeline.Event, error]) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(insertSettings(token)))
	batch, err := db.conn.PrepareBatch(ctx, "INSERT INTO "+quoteName(table)+" ("+insertColumns+")")
	if err != nil {
		return fmt.Errorf("prepare insert into %s: %w", table, class(err))
	}
	defer batch.Abort() // nothing, where it was sent
	waiting := 0
	for part, err := range events {
		if err != nil {
			return err
		}
		for i, column := range insertRows(object, generation, part) {
			if err := batch.Column(i).Append(column); err != nil {
				return fmt.Errorf("column %d of %s: %w", i, table, err)
			}
		}
		for i := range part {
			waiting += part[i].Size()
		}
		if waiting >= textBytes {
			waiting = 0
			if err := batch.Flush(); err != nil {
				return fmt.Errorf("insert: %w", classInsert(err))
			}
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("insert: %w", classInsert(err))
	}
	return nil
}

// textBytes is how much of a block's text is held at once.
const textBytes = 32 << 20

// insertRows is the block, column by column, in the order of insertColumns.
func insertRows(object string, generation uint32, events []pipeline.Event) []any {
	n := len(events)
	ids := make([]uuid.UUID, n)
	times, identities, received := make([]int64, n), make([]int64, n), make([]int64, n)
	seqs, objects, rows, generations := make([]uint64, n), make([]string, n), make([]uint32, n), make([]uint32, n)
	projects, names, receivers := make([]string, n), make([]string, n), make([]string, n)
	sessions, users := make([][]byte, n), make([][]byte, n)
	properties, contexts := make([][]byte, n), make([][]byte, n)
	var texts interned
	for i := range events {
		e := &events[i]
		ids[i] = uuid.UUID(e.ID)
		times[i], identities[i], received[i] = e.Timestamp, e.Timestamp, e.ReceivedAt
		if e.Timestamp == pipeline.NoTime {
			times[i], identities[i] = e.ReceivedAt, 0
		}
		projects[i], names[i], receivers[i] = texts.string(e.Project), texts.string(e.Name), texts.string(e.Receiver)
		sessions[i], users[i], seqs[i] = e.SessionID, e.UserID, e.Seq
		properties[i], contexts[i] = e.Properties, e.Context
		objects[i], rows[i], generations[i] = object, e.Row, generation
	}
	return []any{ids, projects, names, times, identities, received, sessions, users, receivers, seqs, properties, contexts, objects, rows, generations}
}

// interned makes one string of each value that a block repeats.
type interned map[string]string

func (t *interned) string(b []byte) string {
	if s, ok := (*t)[string(b)]; ok {
		return s
	}
	if *t == nil {
		*t = interned{}
	}
	s := string(b)
	(*t)[s] = s
	return s
}

// Present tells whether any of an object's rows of a generation, from row first
// up to, but not with, row end, is in the table. received bounds their received_at, in ms, so
// that only the partitions in question are read. A chunk is one block in one
// partition, so any row means all of it (merges may have collapsed others
// with a client's resend).
func (db *DB) Present(ctx context.Context, table, object string, generation uint32, first, end int64, received [2]int64) (bool, error) {
	var n uint64
	err := db.conn.QueryRow(ctx, "SELECT count() FROM (SELECT 1 FROM "+quoteName(table)+
		" WHERE object = ? AND generation = ? AND object_row >= ? AND object_row < ? AND toDate(received_at) BETWEEN toDate(?) AND toDate(?) LIMIT 1)",
		object, generation, first, end, pipeline.Millis(received[0]).Format("2006-01-02"), pipeline.Millis(received[1]).Format("2006-01-02")).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("ask %s for rows of %s: %w", table, object, class(err))
	}
	return n > 0, nil
}
