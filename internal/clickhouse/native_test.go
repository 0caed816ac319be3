package clickhouse

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/penstock/penstock/internal/clickhouse/native"
	"github.com/penstock/penstock/internal/codec"
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// documents are properties of every shape that the server could see otherwise than we do.
func documents(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("native/testdata/documents.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// What was sent comes back from columns, type for type: alone, and many of any
// shape in one block. (A JSON column holds neither null nor an empty object.)
func TestColumnsHoldWhatWasSent(t *testing.T) {
	db, _, _ := open(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	docs := documents(t)
	for range 4000 {
		docs = append(docs, string(randomObject(rnd, 0)))
	}
	columnar := 0
	for at := 0; at < len(docs); {
		size := 1
		if at >= len(documents(t)) {
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
		c := db.natives.Block() // used memory must leave nothing behind
		if c.Append(events, nil) == nil {
			columnar += len(part)
			if err := db.send(t.Context(), "events", fmt.Sprint(at), native.One(c.Columns("o", 0)...)); err != nil {
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
	rows, err := db.conn.Query(t.Context(), "SELECT object_row, toString(properties) FROM events")
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
		if want := canonical(t, docs[row]); canonical(t, got) != want {
			t.Errorf("sent  %s\ngot   %s\nwant  %s", docs[row], got, want)
		}
	}
	if n != columnar {
		t.Errorf("%d rows, want %d", n, columnar)
	}
}

// canonical is a document as a JSON column can hold it, in one spelling.
func canonical(t *testing.T, doc string) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(doc))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	text, err := json.Marshal(normal(v))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, m := range v {
			m = normal(m)
			if inner, ok := m.(map[string]any); m == nil || ok && len(inner) == 0 {
				continue
			}
			into := out
			for {
				head, rest, dotted := strings.Cut(k, ".")
				if !dotted || rest == "" {
					break
				}
				if into[head] == nil {
					into[head] = map[string]any{}
				}
				into, k = into[head].(map[string]any), rest
			}
			into[k] = m
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = normal(v[i])
		}
		return out
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(v.String(), 10, 64); err == nil {
			return u
		}
		f, _ := v.Float64()
		if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return int64(f) // the server writes 1.0 as 1
		}
		return f
	}
	return v
}

// Where text loses nothing, columns have the types that the server infers from
// text: a table may hold rows of both.
func TestColumnTypesAreThoseOfText(t *testing.T) {
	db, _, _ := open(t)
	lossy := map[string]bool{ // or of another type for the sake of nulls and empty arrays
		`{"a":[[[]],[],[["x"]]]}`: true, `{"a":[[null],[[1]]]}`: true, `{"a":[[null],[1]]}`: true,
		`{"a":[{},null]}`: true, `{"a":[true,1]}`: true, `{"a":[9007199254740993,1.5]}`: true}
	docs := documents(t)
	for i, doc := range docs {
		e := event(i, doc)
		var c native.Block
		if c.Append([]pipeline.Event{e}, nil) != nil || lossy[doc] {
			continue
		}
		if err := db.send(t.Context(), "events", fmt.Sprint("c", i), native.One(c.Columns("columns", 0)...)); err != nil {
			t.Fatal(err)
		}
		e.Project = []byte("text") // else a merge would collapse the two
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

// Values that come in columns, from a Parquet object, are as those that come as text.
func TestTypedColumnsHoldWhatWasSent(t *testing.T) {
	db, _, _ := open(t)
	rnd := rand.New(rand.NewPCG(7, 8))
	docs := documents(t)
	for range 3000 {
		docs = append(docs, string(randomObject(rnd, 0)))
	}
	var plain []string // what columns can hold
	var events []pipeline.Event
	for _, doc := range docs {
		if _, err := native.JSON("j", []byte(doc)); err != nil {
			continue
		}
		e := event(len(plain), doc)
		e.Timestamp += rnd.Int64N(1000)
		plain, events = append(plain, doc), append(events, e)
	}
	var object bytes.Buffer
	enc, err := codec.NewEncoder(&object, pipeline.Parquet, "r")
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
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := db.NewBlock(t.Context(), "events", "typed", 0)
		if err != nil {
			t.Fatal(err)
		}
		b.Append(part, typed)
		if columns = len(typed); b.text { // more types of arrays than a column has
			continue
		}
		columnar += len(part)
		if err := b.Insert(t.Context(), fmt.Sprint("typed", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := db.conn.Query(t.Context(), "SELECT object_row, toString(properties) FROM events")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		var row uint32
		var got string
		if err := rows.Scan(&row, &got); err != nil {
			t.Fatal(err)
		}
		if want := canonical(t, plain[row]); canonical(t, got) != want {
			t.Errorf("sent  %s\ngot   %s\nwant  %s", plain[row], got, want)
		}
	}
	if n != columnar || n < 2000 || columns < 10 {
		t.Errorf("%d rows, want %d; %d typed columns", n, columnar, columns)
	}
}

// The server finds a block in the order of its table's key, whatever the events
// have in common.
func TestBlockIsSorted(t *testing.T) {
	db, _, _ := open(t)
	sorted := func() (blocks, unsorted int64) {
		if err := db.conn.QueryRow(t.Context(), `SELECT toInt64(sumIf(value, event = 'MergeTreeDataWriterBlocks')), toInt64(sumIf(value, event = 'MergeTreeDataWriterBlocksAlreadySorted')) FROM system.events`).Scan(&blocks, &unsorted); err != nil {
			t.Fatal(err)
		}
		return blocks, blocks - unsorted
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, oldest := range []int64{0, -1000} { // before 1970, times are compared otherwise
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

// A table with typed paths, as errors, gets text; both know their rows.
func TestColumnar(t *testing.T) {
	db, _, _ := open(t)
	for table, want := range map[string]bool{"events": true, "errors": true, "nothing": false} {
		got, err := db.columnar(t.Context(), table)
		if err != nil || got != want {
			t.Errorf("%s: %v %v, want %v", table, got, err, want)
		}
	}
}

func randomObject(r *rand.Rand, depth int) []byte {
	b := []byte{'{'}
	used := map[string]bool{}
	for range r.IntN(6) {
		key := []string{"a", "b", "level", "x y", "ü", "deep", "list"}[r.IntN(7)]
		if used[key] {
			continue
		}
		used[key] = true
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = jsonscan.AppendQuoted(b, []byte(key))
		b = append(b, ':')
		b = append(b, randomValue(r, depth+1)...)
	}
	return append(b, '}')
}

func randomValue(r *rand.Rand, depth int) []byte {
	n := 9
	if depth > 3 {
		n = 6
	}
	switch r.IntN(n) {
	case 0:
		return []byte("null")
	case 1:
		return fmt.Append(nil, r.IntN(2) == 0)
	case 2:
		return fmt.Append(nil, r.Int64N(1000)-500)
	case 3:
		return fmt.Append(nil, r.Uint64())
	case 4:
		return fmt.Appendf(nil, "%g", r.NormFloat64()*100)
	case 5:
		return jsonscan.AppendQuoted(nil, []byte(strings.Repeat("sü\"\n", r.IntN(4))))
	case 6:
		return randomObject(r, depth)
	}
	b := []byte{'['}
	same := r.IntN(3) > 0
	var first []byte
	for i := range r.IntN(5) {
		if i > 0 {
			b = append(b, ',')
		}
		v := randomValue(r, depth+1)
		if same && first != nil {
			v = first
		}
		first = v
		b = append(b, v...)
	}
	return append(b, ']')
}
