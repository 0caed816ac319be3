package native

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/pipeline"
)

// The most frequent paths become columns; of equally frequent ones the last. All others are shared: each row has its
// own, in order.
func TestSharedPaths(t *testing.T) {
	c := newJSON("JSON(max_dynamic_paths=2)")
	for _, doc := range []string{`{"often":1,"rare":7,"b":true}`, `{"often":2,"z":{"y":"text"}}`, `{}`,
		`{"a":[1,null],"often":3,"z":{"y":2.5}}`} {
		if err := c.append([]byte(doc)); err != nil {
			t.Fatal(err)
		}
	}
	order := []uint32{3, 2, 1, 0}
	column := c.column("properties", order)
	d := &decoder{t, encode(column)}
	if version := d.uint64(); version != 2 {
		t.Fatalf("version %d, want 2", version)
	}
	s := &shape{names: make([]string, int(d.bytes(1)[0]))}
	for i := range s.names {
		s.names[i] = d.text()
	}
	if diff := cmp.Diff([]string{"often", "z.y"}, s.names); diff != "" {
		t.Errorf("columns, -want +got\n%s", diff)
	}
	for range s.names {
		s.inner = append(s.inner, d.dynamic())
	}
	var got []string
	rows := d.objects(s, len(order))
	for i, shared := range d.shared(len(order)) {
		text, err := json.Marshal(rows[i])
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(string(text), shared))
	}
	want := []string{
		`{"often":3,"z":{"y":2.5}}[a=1e 23 0a 02 00 01 00 00 00 00 00 00 00 01]`, `{}[]`, `{"often":2,"z":{"y":"text"}}[]`,
		`{"often":1}[b=2d 01 rare=0a 07 00 00 00 00 00 00 00]`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows, -want +got\n%s", diff)
	}
	if len(d.b) > 0 {
		t.Errorf("%d bytes are left", len(d.b))
	}
}

// Keys that are ids cost for each value, not for each row, and lose nothing.
func TestSparsePaths(t *testing.T) {
	const n, ids = 8 * sparseFrom, 200
	doc := func(i int) string {
		if i%7 == 0 {
			return fmt.Sprintf(`{"id%d":%d.5,"usual":true}`, i%ids, i)
		}
		return fmt.Sprintf(`{"id%d":%d,"usual":true}`, i%ids, i)
	}
	b := NewBlock(plain)
	var events []pipeline.Event
	var order []uint32
	for i := range n {
		events = append(events, pipeline.Event{Project: []byte("p"), Name: []byte("n"), Properties: []byte(doc(i)),
			Context: []byte("{}")})
		order = append(order, uint32(i))
	}
	if err := b.Append(events, nil, nil); err != nil {
		t.Fatal(err)
	}
	c := &b.properties
	if want := n + ids*sparseFrom/2 + sparseBytes*n; c.size.cells > want {
		t.Errorf("%d rows with %d ids cost %d, want at most %d", n, ids, c.size.cells, want)
	}
	for i, got := range rows(t, c.column("properties", order)) {
		if want := doc(i); got != want {
			t.Fatalf("row %d is %s, want %s", i, got, want)
		}
	}
	counts := map[string]int{}
	b.Survey(func(_, path string) bool { return path == "id1" }, func(n Count) { counts[n.Path+" "+n.Type] += n.Rows })
	of := n/ids + 1 // rows that have id1
	if counts["id1 Float64"] != of || counts["id1 Int64"] != 0 || counts["usual Bool"] != n {
		t.Errorf("counts %v, want %d floats of id1", counts, of)
	}
	_, rest := c.root.split(1)
	of1 := &shared{paths: rest, rows: n}
	of1.gather()
	for i := range n {
		values := of1.of(uint32(i))
		if len(values) != 1 {
			t.Fatalf("row %d has %d shared values, want 1", i, len(values))
		}
		if got, want := string(of1.types[values[0].of].path[1:]), fmt.Sprint("id", i%ids); got != want {
			t.Fatalf("row %d has %s, want %s", i, got, want)
		}
	}
}

// shared decodes the shared paths of each row.
func (d *decoder) shared(rows int) [][]string {
	ends := make([]int, rows+1)
	for i := range rows {
		ends[i+1] = int(d.uint64())
	}
	var all []string
	for range ends[rows] {
		all = append(all, d.text())
	}
	for i := range all {
		n, k := binary.Uvarint(d.b)
		d.bytes(k)
		all[i] += fmt.Sprintf("=% x", d.bytes(int(n)))
	}
	of := make([][]string, rows)
	for i := range of {
		of[i] = all[ends[i]:ends[i+1]]
	}
	return of
}
