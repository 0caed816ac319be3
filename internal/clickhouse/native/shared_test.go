package native

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
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
