package clickhouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"github.com/penstock/penstock/internal/clickhouse/native"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Block is the rows of one insert, split into columns as they come, so that
// nobody holds the events themselves. Append, then Insert once.
type Block struct {
	db            *DB
	table, object string
	generation    uint32
	text          bool // it cannot be sent in columns: the server must parse the events' text
	columns       *native.Block
}

// NewBlock begins a block of an object's rows for a table.
func (db *DB) NewBlock(ctx context.Context, table, object string, generation uint32) (*Block, error) {
	columnar, err := db.columnar(ctx, table)
	if err != nil {
		return nil, fmt.Errorf("insert into %s: %w", table, err)
	}
	return &Block{db, table, object, generation, !columnar, db.natives.Block()}, nil
}

// Append adds rows, all of one day of received_at. typed holds those values of
// their properties that are in columns already.
func (b *Block) Append(events []pipeline.Event, typed []*pipeline.Typed) {
	if !b.text && b.columns.Append(events, typed) != nil {
		b.text = true
	}
}

// Insert sends the block under a deduplication token, rows in the order of the
// table's key: unsorted, the server spends 3.5 instead of 1.2 CPU seconds per million
// events, because it permutes JSON columns value by value. again yields the same
// events once more, for a server that must parse their text.
func (b *Block) Insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error {
	ctx, cancel := context.WithTimeout(ctx, b.db.opts.Timeout)
	defer cancel()
	if !b.text {
		err := b.db.insertColumns(ctx, b.table, token, b.columns.Columns(b.object, b.generation))
		b.db.natives.Keep(b.columns)
		// A column that somebody gave another type may accept the text of a value that
		// it refuses as a value.
		if err == nil || !textMayHelp(err) {
			return err
		}
	}
	return b.db.insertText(ctx, b.table, token, b.object, b.generation, again)
}

// textMayHelp reports whether rows that were refused in columns may be accepted
// as text. Text loses types, so it is for what the data are refused for, and never for
// a server that cannot write its files.
func textMayHelp(err error) bool {
	return retry.ClassOf(err) != retry.Outage && !codes[int32(retry.CodeOf(err))].has(serverFiles)
}

// columnar reports whether a table's JSON can be sent in columns: the server is
// new enough, and the table's columns have no typed paths. The server is asked
// once for each table, by a row that it throws away.
func (db *DB) columnar(ctx context.Context, table string) (bool, error) {
	if is, known := db.columns.Load(table); known {
		return is.(bool), nil
	}
	var kind string
	if err := db.one(ctx, "read columns", []any{&kind},
		"SELECT anyIf(type, name = 'properties') FROM system.columns WHERE database = ? AND table = ?",
		db.database, table); err != nil || kind == "" { // empty: the table does not exist yet
		return false, err
	}
	probe, err := native.JSON("j", []byte(`{"a":1,"b":{"c":["x"]},"d":[{"e":true}]}`))
	if err != nil {
		return false, err
	}
	err = db.natives.Insert(ctx, "INSERT INTO FUNCTION null("+quoteText("j "+kind)+") VALUES", nil,
		[]native.Column{probe})
	if _, refused := codeOf(err); err != nil && (!refused || ctx.Err() != nil) {
		return false, class(cmp.Or(ctx.Err(), err))
	}
	if err == nil || retry.ClassOf(classInsert(err)) != retry.Outage { // a busy server is asked again
		db.columns.Store(table, err == nil)
	}
	return err == nil, nil
}

// insertColumns sends a block whose JSON the server need not parse.
func (db *DB) insertColumns(ctx context.Context, table, token string, columns []native.Column) error {
	query := "INSERT INTO " + quoteName(table) + " (" + native.Columns + ") VALUES"
	if err := db.natives.Insert(ctx, query, insertSettings(token), columns); err != nil {
		return fmt.Errorf("insert: %w", classInsert(err))
	}
	return nil
}

// chunkCells is how many values of JSON columns a block of usual size has at most.
const chunkCells = 32 << 20

// MinChunk is how many rows ChunkRows lets any block have.
const MinChunk = 64 << 10

// ChunkRows returns how many rows like these a block may have, so that neither
// it nor what the server makes of it grows with the number of paths.
func (db *DB) ChunkRows(sample []pipeline.Event, most int) int {
	b := new(native.Block)
	if err := b.Append(sample, nil); err != nil && !errors.Is(err, native.ErrNotColumnar) {
		return most
	}
	return min(most, max(chunkCells/max(1, b.Paths()), MinChunk))
}

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

// insertText lets the server parse the JSON. The events come in parts, from which
// the server makes one block (min_insert_block_size_rows).
func (db *DB) insertText(ctx context.Context, table, token, object string, generation uint32,
	events iter.Seq2[[]pipeline.Event, error]) error {
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(insertSettings(token)))
	batch, err := db.conn.PrepareBatch(ctx, "INSERT INTO "+quoteName(table)+" ("+native.Columns+")")
	if err != nil {
		return fmt.Errorf("prepare insert into %s: %w", table, class(err))
	}
	defer batch.Abort() // does nothing after Send
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

// textBytes is how many bytes of a block's text are held at once.
const textBytes = 32 << 20

// insertRows returns events column by column, in the order of native.Columns.
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
	return []any{ids, projects, names, times, identities, received, sessions, users, receivers, seqs, properties, contexts,
		objects, rows, generations}
}

// interned shares one string between all equal values of a block.
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
