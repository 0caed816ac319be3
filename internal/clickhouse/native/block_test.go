package native

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/clickhouse/native/nativetest"
	"github.com/penstock/penstock/internal/pipeline"
)

// events returns one event for each document, not sorted by key.
func events(rnd *rand.Rand, docs []string) []pipeline.Event {
	all := make([]pipeline.Event, len(docs))
	for i, doc := range docs {
		e := &all[i]
		for j := range e.ID {
			e.ID[j] = byte(rnd.Uint32())
		}
		e.Project, e.Name = fmt.Append(nil, "p", rnd.IntN(3)), fmt.Append(nil, "n", rnd.IntN(12))
		if e.Timestamp = int64(rnd.IntN(20)); rnd.IntN(5) == 0 {
			e.Timestamp = pipeline.NoTime
		}
		e.ReceivedAt, e.Seq, e.Row = 1795348800000+int64(i), 1<<40+uint64(i), uint32(i)
		e.SessionID, e.UserID, e.Receiver = fmt.Append(nil, "s", i), bytes.Repeat([]byte("u"), i%300), []byte("r")
		e.Properties, e.Context = []byte(doc), fmt.Appendf(nil, `{"ip":"10.0.0.%d"}`, i%256)
	}
	return all
}

// decoded returns a block's columns by name.
func decoded(t *testing.T, b *Block) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	var names []string
	for _, c := range b.Columns("events/o", 7) {
		if all[c.Name] = rows(t, c); len(all[c.Name]) != b.Rows() {
			t.Errorf("%s has %d rows, want %d", c.Name, len(all[c.Name]), b.Rows())
		}
		names = append(names, c.Name)
	}
	if got := strings.Join(names, ", "); got != Columns {
		t.Errorf("columns %s, want %s", got, Columns)
	}
	return all
}

// Each row of a block is its event, whatever the other rows are, and whatever the block held before.
func TestBlockHoldsWhatWasAppended(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	shapes := nativetest.Documents()
	docs := slices.Clone(shapes)
	for range 4000 {
		docs = append(docs, nativetest.Random(rnd))
	}
	c := NewClient(Options{})
	columnar := 0
	for len(docs) > 0 {
		n := 1
		if len(docs) <= 4000 {
			n = min(1+rnd.IntN(60), len(docs))
		}
		part := events(rnd, docs[:n])
		docs = docs[n:]
		b := c.Block(plain)
		half := len(part) / 2
		if err := errors.Join(b.Append(part[:half], nil, nil), b.Append(part[half:], nil, nil)); err != nil {
			if !errors.Is(err, ErrNotColumnar) {
				t.Fatal(err)
			}
			continue
		}
		columnar += n
		got := decoded(t, b)
		for i := range n {
			var e *pipeline.Event
			for j := range part {
				if fmt.Sprint(part[j].Row) == got["object_row"][i] {
					e = &part[j]
				}
			}
			at, identity := e.Timestamp, e.Timestamp
			if e.Timestamp == pipeline.NoTime {
				at, identity = e.ReceivedAt, 0
			}
			want := []string{fmt.Sprintf("%x", e.ID[:]), string(e.Project), string(e.Name), fmt.Sprint(at), fmt.Sprint(identity),
				fmt.Sprint(e.ReceivedAt), string(e.SessionID), string(e.UserID), string(e.Receiver), fmt.Sprint(e.Seq),
				nativetest.Canonical(t, string(e.Properties)), nativetest.Canonical(t, string(e.Context)), "events/o",
				fmt.Sprint(e.Row), "7"}
			var row []string
			for _, name := range strings.Split(Columns, ", ") {
				v := got[name][i]
				if name == "properties" || name == "context" {
					v = nativetest.Canonical(t, v)
				}
				row = append(row, v)
			}
			if diff := cmp.Diff(want, row); diff != "" {
				t.Fatalf("row %d of %d, %s: -want +got\n%s", i, n, e.Properties, diff)
			}
		}
		c.Keep(b)
	}
	if columnar < 2000 {
		t.Errorf("%d documents were columns, want most of them", columnar)
	}
}

// Rows are sorted by the table's key, also with times that do not fit into one number with the other columns.
func TestOrder(t *testing.T) {
	for name, oldest := range map[string]int64{"after 1970": 0, "before 1970": -1000, "far away": 1 << 50} {
		rnd := rand.New(rand.NewPCG(3, 4))
		all := events(rnd, slices.Repeat([]string{"{}"}, 3000))
		for i := range all {
			if all[i].Timestamp != pipeline.NoTime {
				all[i].Timestamp += oldest
			}
		}
		b := NewBlock(plain)
		if err := b.Append(all, nil, nil); err != nil {
			t.Fatal(err)
		}
		got := decoded(t, b)
		key := func(i int) string {
			id := got["event_id"][i]
			var at int64
			fmt.Sscan(got["identity_time"][i], &at)
			return fmt.Sprintf("%s %s %020d %s%s", got["project"][i], got["name"][i], at+1<<40, id[16:], id[:16])
		}
		for i := 1; i < len(all); i++ {
			if key(i-1) > key(i) {
				t.Fatalf("%s: row %d is %s, after %s", name, i, key(i), key(i-1))
			}
		}
	}
}

// Typed values get to their rows, beside the values in the text.
func TestTypedValues(t *testing.T) {
	part := events(rand.New(rand.NewPCG(5, 6)), []string{`{"a":1}`, `{}`, `{"b":{"c":"x"}}`, `{}`})
	typed := []*pipeline.Typed{
		{Path: "level", Kind: pipeline.TypedInt, First: 10, Rows: []uint32{10, 12, 13}, Bits: []uint64{7, 8, 1<<64 - 1}},
		{Path: "b.d", Kind: pipeline.TypedBool, First: 10, Rows: []uint32{12}, Bits: []uint64{1}},
		{Path: "f", Kind: pipeline.TypedFloat, First: 10, Rows: []uint32{11}, Bits: []uint64{0x3ff8000000000000}},
		{Path: "none", Kind: pipeline.TypedInt, First: 10},
	}
	b := NewBlock(plain)
	if err := b.Append(part, typed, nil); err != nil {
		t.Fatal(err)
	}
	got := decoded(t, b)
	want := map[string]string{"0": `{"a":1,"level":7}`, "1": `{"f":1.5}`, "2": `{"b":{"c":"x","d":true},"level":8}`,
		"3": `{"level":-1}`}
	for i, row := range got["object_row"] {
		if diff := cmp.Diff(want[row], nativetest.Canonical(t, got["properties"][i])); diff != "" {
			t.Errorf("row %s: -want +got\n%s", row, diff)
		}
	}
	twice := &pipeline.Typed{Path: "a", Kind: pipeline.TypedInt, First: 0, Rows: []uint32{0}, Bits: []uint64{7}}
	if err := NewBlock(plain).Append(part[:1], []*pipeline.Typed{twice}, nil); !errors.Is(err, ErrNotColumnar) {
		t.Errorf("a path in text and in a column: got %v", err)
	}
}

// A text block keeps documents unchanged.
func TestBlockOfText(t *testing.T) {
	part := events(rand.New(rand.NewPCG(7, 8)), []string{`{"a":1}`, `{ "any": "text" }`})
	b := NewBlock(plain)
	b.AppendText(part)
	for _, c := range b.Columns("o", 0) {
		if c.Name != "properties" {
			continue
		}
		if c.Type != "" {
			t.Errorf("type %q, want that of the table", c.Type)
		}
		c.Type = "String"
		got := rows(t, c)
		slices.Sort(got)
		if diff := cmp.Diff([]string{`{ "any": "text" }`, `{"a":1}`}, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	}
	if b.Reset(); b.Rows() != 0 || b.Append(part, nil, nil) != nil || b.Columns("o", 0)[10].Type != "JSON" {
		t.Error("a block of text cannot be used again for columns")
	}
}

// Keys of one, two and four bytes.
func TestRepeatedValues(t *testing.T) {
	for _, n := range []int{1, 256, 257, 65_536, 65_537} {
		var r pipeline.Repeated
		var want []string
		order := make([]uint32, n)
		for i := range n {
			order[i] = uint32(i)
			want = append(want, fmt.Sprint("v", i))
			r.Add([]byte(want[i]))
		}
		if diff := cmp.Diff(want, rows(t, repeated("c", &r, order))); diff != "" {
			t.Errorf("%d values: -want +got\n%s", n, diff)
		}
	}
}

func TestArrayTypes(t *testing.T) {
	for text, want := range map[string]string{
		`[]`: "Array(Nullable(String))", `[null]`: "Array(Nullable(String))", `[1,null]`: "Array(Nullable(Int64))",
		`[1,2.5]`: "Array(Nullable(Float64))", `[9007199254740993,1.5]`: "Array(Dynamic)", `[true,1]`: "Array(Dynamic)",
		`[1,9223372036854775808]`: "Array(Nullable(UInt64))", `[-1,9223372036854775808]`: "Array(Dynamic)",
		`[[1],[]]`: "Array(Array(Nullable(Int64)))", `[[],[[]]]`: "Array(Array(Array(Nullable(String))))",
		`[[1],["x"]]`:  "Array(Dynamic)",
		`[{"a":1},{}]`: "Array(JSON(max_dynamic_types=16, max_dynamic_paths=256))", `[{},1]`: "Array(Dynamic)",
	} {
		got, _, err := arrayType([]byte(text), nesting{paths: defaultPaths})
		if err != nil || got != want {
			t.Errorf("%s is %s, want %s, %v", text, got, want, err)
		}
	}
}
