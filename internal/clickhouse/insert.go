package clickhouse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"

	"github.com/penstock/penstock/internal/clickhouse/native"
	"github.com/penstock/penstock/internal/pipeline"
	"github.com/penstock/penstock/internal/retry"
)

// Block is the rows of one insert. It splits events into columns as they arrive, so nobody holds the events. Call
// Append, then Insert once.
type Block struct {
	db            *DB
	table, object string
	generation    uint32
	text          bool // the server must parse the events' text: columns cannot hold it
	columns       *native.Block
	catalogue     *Catalogue     // nil: no counting
	days          map[int64]bool // days of its rows, for rollups; nil: the table has none
}

// NewBlock starts a block of an object's rows for a table.
func (db *DB) NewBlock(ctx context.Context, table, object string, generation uint32) (*Block, error) {
	types, err := db.columnar(ctx, table)
	if err != nil {
		return nil, fmt.Errorf("insert into %s: %w", table, err)
	}
	b := &Block{db: db, table: table, object: object, generation: generation, text: types == nil}
	if table == rollupSource {
		b.days = map[int64]bool{}
	}
	if types == nil {
		return b, nil
	}
	b.columns = db.natives.Block(*types)
	if c := db.catalogue; c != nil && c.table == table {
		c.renew(ctx)
		b.catalogue = c
	}
	return b, nil
}

// Append adds rows of one partition. typed has those property values that are already in columns. pick are the indexes
// of the events to add, ascending; nil: all.
func (b *Block) Append(events []pipeline.Event, typed []*pipeline.Typed, pick []uint32) {
	if b.days != nil {
		addDays(b.days, events, pick)
	}
	if !b.text && b.columns.Append(events, typed, pick) != nil {
		b.text = true
	}
}

// Insert sends the block under a deduplication token, sorted by the table's key. Unsorted, the server needs 3.5 instead
// of 1.2 CPU seconds per million events, because it permutes JSON columns value by value. again yields the same events
// once more, for a server that must parse their text.
func (b *Block) Insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error {
	if b.catalogue == nil {
		return b.insert(ctx, token, again)
	}
	found := b.catalogue.survey(b.columns, !b.text)
	err := b.insert(ctx, token, again)
	if err == nil {
		b.catalogue.add(found)
	}
	return err
}

// Found counts the properties of a block that is already in the table. The loader that inserted it may have been killed
// before it wrote the counts. Some values may count twice, and none is missing.
func (b *Block) Found() {
	if b.catalogue != nil {
		b.catalogue.add(b.catalogue.survey(b.columns, !b.text))
	}
}

func (b *Block) insert(ctx context.Context, token string, again iter.Seq2[[]pipeline.Event, error]) error {
	ctx, cancel := context.WithTimeout(ctx, b.db.opts.Timeout)
	defer cancel()
	if err := b.db.markDays(ctx, b.days); err != nil {
		return err
	}
	if !b.text {
		more, names, err := b.defaults(ctx)
		if err != nil {
			return err
		}
		columns := append(b.columns.Columns(b.object, b.generation), more...)
		err = b.db.send(ctx, b.table, names, token, native.One(columns...))
		b.db.natives.Keep(b.columns)
		// A column whose type somebody changed may accept a value as text only.
		if err == nil || !textMayHelp(err) {
			return err
		}
	}
	var failed error // error of again, which says nothing about the server
	err := b.db.send(ctx, b.table, "", token, b.parts(again, &failed))
	if failed != nil {
		return failed
	}
	return err
}

// textBytes is the most text of a block that is held at once, in bytes.
const textBytes = 32 << 20

// parts yields events as blocks of text. The server joins them into one block (min_insert_block_size_rows), sorted by
// the table's key.
func (b *Block) parts(events iter.Seq2[[]pipeline.Event, error], failed *error) iter.Seq2[[]native.Column, error] {
	return func(yield func([]native.Column, error) bool) {
		block := new(native.Block)
		waiting := 0
		for part, err := range events {
			if err != nil {
				*failed = err
				yield(nil, err)
				return
			}
			block.AppendText(part)
			for i := range part {
				waiting += part[i].Size()
			}
			if waiting >= textBytes {
				if !yield(block.Columns(b.object, b.generation), nil) {
					return
				}
				block.Reset()
				waiting = 0
			}
		}
		if block.Rows() > 0 {
			yield(block.Columns(b.object, b.generation), nil)
		}
	}
}

// textMayHelp reports whether rows rejected in columns may be accepted as text. Text loses types, so it is only for
// errors in the data, never for a server that cannot write its files.
func textMayHelp(err error) bool {
	return retry.ClassOf(err) != retry.Outage && !codes[int32(retry.CodeOf(err))].has(serverFiles)
}

// sendable matches the types of JSON columns that can be sent in columns. JSON with typed paths cannot: the server
// converts it from the type JSON.
var sendable = regexp.MustCompile(`^JSON\(max_dynamic_paths *= *\d+\)$`)

// columnar returns the types under which a table's JSON is sent in columns, which saves the server a conversion through
// text. nil: the server is too old. The server is asked once for each table, by a row that it discards.
func (db *DB) columnar(ctx context.Context, table string) (*native.Types, error) {
	if known, ok := db.columns.Load(table); ok {
		return known.(*native.Types), nil
	}
	var kind, context string
	if err := db.one(ctx, "read columns", []any{&kind, &context},
		"SELECT anyIf(type, name = 'properties'), anyIf(type, name = 'context') FROM system.columns"+
			" WHERE database = ? AND table = ?", db.database, table); err != nil || kind == "" {
		return nil, err // empty: the table does not exist yet
	}
	types := &native.Types{Properties: "JSON", Context: "JSON"}
	if sendable.MatchString(kind) {
		types.Properties = kind
	}
	if sendable.MatchString(context) {
		types.Context = context
	}
	probe, err := native.JSON("j", types.Properties, []byte(`{"a":1,"b":{"c":["x"]},"d":[{"e":true}]}`))
	if err != nil {
		return nil, err
	}
	err = db.natives.Insert(ctx, "INSERT INTO FUNCTION null("+quoteText("j "+kind)+") VALUES", nil,
		native.One(probe))
	if _, refused := codeOf(err); err != nil && (!refused || ctx.Err() != nil) {
		return nil, class(cmp.Or(ctx.Err(), err))
	}
	if err != nil && retry.ClassOf(classInsert(err)) == retry.Outage { // ask a busy server again later
		return nil, nil
	}
	if err != nil {
		types = nil
	}
	db.columns.Store(table, types)
	return types, nil
}

// send inserts blocks under a deduplication token. more are the names of additional computed columns in the blocks,
// each after a comma.
func (db *DB) send(ctx context.Context, table, more, token string, blocks iter.Seq2[[]native.Column, error]) error {
	query := "INSERT INTO " + quoteName(table) + " (" + native.Columns + more + ") VALUES"
	settings := insertSettings(token)
	if more != "" {
		settings["insert_allow_materialized_columns"] = 1
	}
	if err := db.natives.Insert(ctx, query, settings, blocks); err != nil {
		return fmt.Errorf("insert: %w", classInsert(err))
	}
	return nil
}

// chunkCells is the most values of JSON columns in a block of usual size.
const chunkCells = 32 << 20

// MinChunk is the least number of rows that ChunkRows allows.
const MinChunk = 64 << 10

// ChunkRows returns how many rows like these a block may have. So neither the block nor the server's memory grows with
// the number of paths.
func (db *DB) ChunkRows(sample []pipeline.Event, most int) int {
	b := native.NewBlock(native.Types{Properties: "JSON", Context: "JSON"})
	if err := b.Append(sample, nil, nil); err != nil && !errors.Is(err, native.ErrNotColumnar) {
		return most
	}
	return min(most, max(chunkCells/max(1, b.Paths()), MinChunk))
}

// insertSettings are sent with every insert, because servers' defaults differ.
func insertSettings(token string) map[string]any {
	return map[string]any{
		// Otherwise a ReplacingMergeTree merges each block within itself, row by row, at five times the cost of the insert.
		// FINAL and merges remove resends anyway.
		"optimize_on_insert":         0,
		"async_insert":               0, // 1 by default since 26: it would acknowledge before the rows are in
		"insert_deduplicate":         1,
		"insert_deduplication_token": token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		"max_insert_threads":                       1,       // keeps one block whole
		"min_insert_block_size_rows":               1 << 30, // joins parts into one block
		"min_insert_block_size_bytes":              1 << 40,
		"max_partitions_per_insert_block":          1, // a chunk is one part in one partition: all or nothing
		"throw_on_max_partitions_per_insert_block": 1,
		// A string stays a string, whatever it looks like.
		"input_format_try_infer_dates":                        0,
		"input_format_try_infer_datetimes":                    0,
		"input_format_try_infer_integers":                     1,
		"input_format_json_try_infer_numbers_from_strings":    0,
		"input_format_json_read_bools_as_strings":             0,
		"input_format_json_read_numbers_as_strings":           0,
		"input_format_json_infer_incomplete_types_as_strings": 1, // an empty array has no element type
	}
}
