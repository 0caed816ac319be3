package clickhouse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/penstock/penstock/internal/clickhouse/native"
	"github.com/penstock/penstock/internal/clickhouse/native/nativetest"
	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Queries return what was sent in columns, with the same types: single documents, and many of any shape in one block.
// (A JSON column holds neither null nor an empty object.) So they do if most paths are not columns but shared, also
// after a merge, which makes columns of other paths.
func TestColumnsHoldWhatWasSent(t *testing.T) {
	db, _, _ := open(t)
	holdsWhatWasSent(t, db, "events", 4000)
	for _, limit := range []int{0, 2} {
		table := fmt.Sprint("limit_", limit)
		for _, statement := range []string{"CREATE TABLE " + table + " AS events",
			"ALTER TABLE " + table + fmt.Sprintf(" MODIFY COLUMN properties JSON(max_dynamic_paths = %d)", limit)} {
			if err := db.exec(t.Context(), "create a table", statement); err != nil {
				t.Fatal(err)
			}
		}
		holdsWhatWasSent(t, db, table, 1000)
	}
}

func holdsWhatWasSent(t *testing.T, db *DB, table string, random int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	docs := nativetest.Documents()
	shapes := len(docs)
	for range random {
		docs = append(docs, nativetest.Random(rnd))
	}
	types := typesOf(t, db, table)
	columnar := 0
	for at := 0; at < len(docs); {
		size := 1
		if at >= shapes {
			size = 1 + rnd.IntN(40)
		}
		part := docs[at:min(at+size, len(docs))]
		var events []pipeline.Event
		for i, doc := range part {
			if _, _, err := new(jsonscan.Scanner).Object([]byte(doc)); err != nil {
				t.Fatalf("%s: %v", doc, err)
			}
			e := event(at+i, doc)
			e.Row = uint32(at + i)
			e.Timestamp += rnd.Int64N(50) // the block is sorted by it
			events = append(events, e)
		}
		c := db.natives.Block(types) // reused memory must leave no trace
		if c.Append(events, nil, nil) == nil {
			if at%2 == 0 { // integers may become floats of the same value
				c.Survey(func(string, string) bool { return true }, func(native.Count) {})
			}
			columnar += len(part)
			if err := db.send(t.Context(), table, "", fmt.Sprint(at), native.One(c.Columns("o", 0)...)); err != nil {
				t.Fatalf("columns: %v\n%s", err, part)
			}
		}
		db.natives.Keep(c)
		at += len(part)
	}
	t.Logf("%d of %d documents were columns", columnar, len(docs))
	if columnar < len(docs)/2 {
		t.Errorf("%d of %d documents were columns", columnar, len(docs))
	}
	for _, merged := range []string{"", "OPTIMIZE TABLE " + table + " FINAL"} {
		if merged != "" {
			if err := db.exec(t.Context(), "merge", merged); err != nil {
				t.Fatal(err)
			}
		}
		compareRows(t, db, table, docs, columnar)
	}
}

// compareRows compares a table's rows with the documents that were sent.
func compareRows(t *testing.T, db *DB, table string, docs []string, want int) {
	t.Helper()
	rows, err := db.conn.Query(t.Context(), "SELECT object_row, toString(properties) FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for rows.Next() {
		var row uint32
		var got string
		if err := rows.Scan(&row, &got); err != nil {
			t.Fatal(err)
		}
		n++
		if want := nativetest.Canonical(t, docs[row]); nativetest.Canonical(t, got) != want {
			t.Errorf("sent  %s\ngot   %s\nwant  %s", docs[row], got, want)
		}
	}
	if n != want {
		t.Errorf("%s: %d rows, want %d", table, n, want)
	}
}

// If text loses nothing, columns have the types that the server infers from text, because a table may hold rows of
// both.
func TestColumnTypesAreThoseOfText(t *testing.T) {
	db, _, _ := open(t)
	lossy := map[string]bool{ // or another type because of nulls and empty arrays
		`{"a":[[[]],[],[["x"]]]}`: true, `{"a":[[null],[[1]]]}`: true, `{"a":[[null],[1]]}`: true,
		`{"a":[{},null]}`: true, `{"a":[true,1]}`: true, `{"a":[9007199254740993,1.5]}`: true}
	docs := nativetest.Documents()
	types := typesOf(t, db, "events")
	for i, doc := range docs {
		e := event(i, doc)
		c := native.NewBlock(types)
		if c.Append([]pipeline.Event{e}, nil, nil) != nil || lossy[doc] {
			continue
		}
		if err := db.send(t.Context(), "events", "", fmt.Sprint("c", i), native.One(c.Columns("columns", 0)...)); err != nil {
			t.Fatal(err)
		}
		e.Project = []byte("text") // otherwise a merge would collapse the two
		if err := insertText(t, db, "events", fmt.Sprint("t", i), "text", e); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.conn.Query(t.Context(), `SELECT seq, anyIf(toString(JSONAllPathsWithTypes(properties)), object = 'text') AS a, anyIf(toString(JSONAllPathsWithTypes(properties)), object = 'columns') AS b
		FROM events GROUP BY seq HAVING a != b`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var i uint64
		var a, b string
		if err := rows.Scan(&i, &a, &b); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s\n text    %s\n columns %s", docs[i], a, b)
	}
}

// Values from a Parquet object's columns equal those from text.
func TestTypedColumnsHoldWhatWasSent(t *testing.T) {
	db, _, _ := open(t)
	rnd := rand.New(rand.NewPCG(7, 8))
	docs := nativetest.Documents()
	for range 3000 {
		docs = append(docs, nativetest.Random(rnd))
	}
	var plain []string // values that columns can hold
	var events []pipeline.Event
	for _, doc := range docs {
		if _, err := native.JSON("j", "JSON", []byte(doc)); err != nil {
			continue
		}
		e := event(len(plain), doc)
		e.Timestamp += rnd.Int64N(1000)
		plain, events = append(plain, doc), append(events, e)
	}
	var object bytes.Buffer
	enc, err := codec.NewEncoders().New(&object, pipeline.Parquet, "r")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(enc.Encode(events), enc.Close()); err != nil {
		t.Fatal(err)
	}
	dec, err := codec.NewDecoder(bytes.NewReader(object.Bytes()), int64(object.Len()), pipeline.Parquet)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	columns, columnar := 0, 0
	for i := 0; ; i++ {
		part, typed, _, err := dec.(codec.TypedDecoder).DecodeTyped(nil, codec.Limit{Rows: 100, Bytes: 1 << 30})
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := db.NewBlock(t.Context(), "events", "typed", 0)
		if err != nil {
			t.Fatal(err)
		}
		b.Append(part, typed, nil)
		if columns = len(typed); b.text { // more array types than a column can have
			continue
		}
		columnar += len(part)
		if err := b.Insert(t.Context(), fmt.Sprint("typed", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.conn.Query(t.Context(), "SELECT seq, toString(properties) FROM events")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var row uint64
		var got string
		if err := rows.Scan(&row, &got); err != nil {
			t.Fatal(err)
		}
		if want := nativetest.Canonical(t, plain[row]); nativetest.Canonical(t, got) != want {
			t.Errorf("sent  %s\ngot   %s\nwant  %s", plain[row], got, want)
		}
	}
	if n != columnar || n < 2000 || columns < 10 {
		t.Errorf("%d rows, want %d; %d typed columns", n, columnar, columns)
	}
}

// The server gets each block sorted by its table's key.
func TestBlockIsSorted(t *testing.T) {
	db, _, _ := open(t)
	sorted := func() (blocks, unsorted int64) {
		if err := db.conn.QueryRow(t.Context(),
			`SELECT toInt64(sumIf(value, event = 'MergeTreeDataWriterBlocks')), toInt64(sumIf(value, event = 'MergeTreeDataWriterBlocksAlreadySorted')) FROM system.events`).Scan(&blocks, &unsorted); err != nil {
			t.Fatal(err)
		}
		return blocks, blocks - unsorted
	}
	// The day of events without a time. An insert would record it in a separate block.
	if err := db.markDays(t.Context(), map[int64]bool{noon / (1000 * secondsOfDay): true}); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, oldest := range []int64{0, -1000} { // times before 1970 compare differently
		var events []pipeline.Event
		for i := range 5000 {
			e := event(i, `{"a":1}`)
			for j := range e.ID {
				e.ID[j] = byte(rnd.Uint32())
			}
			e.Project, e.Name = fmt.Append(nil, "p", rnd.IntN(3)), fmt.Append(nil, "n", rnd.IntN(12))
			if e.Timestamp = oldest + int64(rnd.IntN(20)); rnd.IntN(5) == 0 {
				e.Timestamp = pipeline.NoTime
			}
			e.Row = uint32(i)
			events = append(events, e)
		}
		blocks, unsorted := sorted()
		if err := insertEvents(t.Context(), db, "events", fmt.Sprint("sorted", oldest), "o", 0, events); err != nil {
			t.Fatal(err)
		}
		if b, u := sorted(); b != blocks+1 || u != unsorted {
			t.Errorf("from %d: %d blocks were written, %d of them not in order; want 1 and 0", oldest, b-blocks, u-unsorted)
		}
	}
}

// A table with typed paths, such as errors, gets text; both kinds of block know their rows.
func TestColumnar(t *testing.T) {
	db, _, _ := open(t)
	for table, want := range map[string]bool{"events": true, "errors": true, "nothing": false} {
		got, err := db.columnar(t.Context(), table)
		if err != nil || (got != nil) != want {
			t.Errorf("%s: %v %v, want %v", table, got, err, want)
		}
	}
}

// typesOf returns the types of a table's JSON columns.
func typesOf(t *testing.T, db *DB, table string) native.Types {
	t.Helper()
	types, err := db.columnar(t.Context(), table)
	if err != nil || types == nil {
		t.Fatalf("got %v, %v", types, err)
	}
	return *types
}
