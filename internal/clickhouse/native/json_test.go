package native

import (
	"errors"
	"fmt"
	"testing"

	"github.com/penstock/penstock/internal/clickhouse/native/nativetest"
	"github.com/penstock/penstock/internal/jsonscan"
	"github.com/penstock/penstock/internal/pipeline"
)

// Keys that are ids do not create unlimited columns.
func TestTooManyPaths(t *testing.T) {
	c := newJSON("JSON")
	for i := range maxPaths / 2 { // two paths a document: one would exceed the cells
		if err := c.append(fmt.Appendf(nil, `{"id%d":1,"other%d":1}`, i, i)); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := c.append([]byte(`{"more":1}`)); !errors.Is(err, ErrNotColumnar) {
		t.Errorf("got %v", err)
	}
}

// encode returns a column's bytes.
func encode(c Column) []byte {
	var b []byte
	if c.state != nil {
		b = c.state(nil)
	}
	s := sink{flush: func(full []byte) []byte {
		b = append(b, full...)
		return full[:0]
	}}
	c.write(&s)
	return append(b, s.buf...)
}

func FuzzColumns(f *testing.F) {
	for _, doc := range nativetest.Documents() {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		c := newJSON("JSON")
		err := c.append(doc) // must return without a panic for any input
		if _, n, bad := new(jsonscan.Scanner).Object(doc); bad == nil && n == len(doc) && err != nil &&
			!errors.Is(err, ErrNotColumnar) {
			t.Errorf("%s: %v", doc, err)
		}
		for _, limit := range []int{0, defaultPaths} {
			if c.root.depth.paths = limit; err == nil {
				encode(c.column("j", make([]uint32, c.rows)))
			}
		}
	})
}

// Keys that are ids within arrays do not create unlimited columns either, although the outermost object does not count
// them. Such columns are not kept for the next block.
func TestColumnsWithinArraysAreBounded(t *testing.T) {
	for name, doc := range map[string]string{
		"few rows each": `{"items":[{"item-%d":1}]}`, "two levels": `{"items":[{"x":[{"item-%d":1}]}]}`,
		"among other things": `{"items":[1,{"item-%d":1}]}`,
		"nulls":              `{"items":[{"item-%d":{"a":null}}]}`,
	} {
		c := newJSON("JSON")
		var err error
		rows := 0
		for ; err == nil && rows < 2*maxParts; rows++ {
			id := rows
			if name == "few rows each" {
				id %= 1000 // few paths, but each costs a byte for each row
			}
			err = c.append(fmt.Appendf(nil, doc, id))
		}
		if !errors.Is(err, ErrNotColumnar) || c.size.cells > maxCells+rows {
			t.Errorf("%s: %d cells, %d parts after %d rows: %v", name, c.size.cells, c.size.parts, rows, err)
		}
	}
	b := NewBlock(plain)
	var events []pipeline.Event
	for i := range 2 * keepPaths {
		events = append(events, pipeline.Event{Project: []byte("p"), Name: []byte("n"),
			Properties: fmt.Appendf(nil, `{"items":[{"item-%d":1}]}`, i), Context: []byte("{}")})
	}
	if err := b.Append(events, nil, nil); err != nil {
		t.Fatal(err)
	}
	c := NewClient(Options{})
	if c.Keep(b); c.Block(plain) == b {
		t.Errorf("a block of %d paths is kept", b.properties.size.paths)
	}
}
