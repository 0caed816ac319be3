package native

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/penstock/penstock/internal/clickhouse/native/nativetest"
	"github.com/penstock/penstock/internal/pipeline"
)

// typedValue gives an event a value at a path, in typed or in the document, and returns its JSON.
func typedValue(rnd *rand.Rand, t *pipeline.Typed, row uint32) string {
	t.Rows = append(t.Rows, row)
	n := rnd.IntN(100)
	switch t.Kind {
	case pipeline.TypedText:
		t.Text = append(t.Text, bytes.Repeat([]byte("x"), n)...)
		t.Ends = append(t.Ends, uint32(len(t.Text)))
		return fmt.Sprintf("%q", bytes.Repeat([]byte("x"), n))
	case pipeline.TypedBool:
		t.Bits = append(t.Bits, uint64(n&1))
		return fmt.Sprint(n&1 == 1)
	case pipeline.TypedFloat:
		t.Bits = append(t.Bits, math.Float64bits(float64(n)+0.5))
		return fmt.Sprint(float64(n) + 0.5)
	}
	t.Bits = append(t.Bits, uint64(n))
	return fmt.Sprint(n)
}

// Batches of typed values come to their rows: of paths that all, many or few rows have, of one or several types, beside
// values of the same path in the text, whatever events of the batch are picked.
func TestTypedBatches(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	b := NewBlock(plain)
	want := map[string]string{}
	first := uint32(0)
	for range 40 {
		n := 1 + rnd.IntN(400)
		part := events(rnd, make([]string, n))
		typed := []*pipeline.Typed{{Path: "all", Kind: pipeline.TypedInt}, {Path: "many", Kind: pipeline.TypedText},
			{Path: "few", Kind: pipeline.TypedInt}, {Path: "few", Kind: pipeline.TypedText}, {Path: "bool", Kind: pipeline.TypedBool},
			{Path: "two", Kind: pipeline.TypedFloat}, {Path: "two", Kind: pipeline.TypedText}}
		share := []float64{1, 0.7, 0.015, 0.015, 0.3, 0.5, 0.3}
		var pick []uint32
		for i := range part {
			part[i].Row = first + uint32(i)
			part[i].Timestamp = int64(rnd.IntN(5000))
			members, has := "", map[string]bool{}
			text := ""
			for k, values := range typed {
				values.First = 1000
				if has[values.Path] || rnd.Float64() >= share[k] {
					continue
				}
				has[values.Path] = true
				if k > 0 && rnd.IntN(10) == 0 { // in the text instead
					text += fmt.Sprintf(",%q:[%d]", values.Path, i)
					continue
				}
				members += fmt.Sprintf(",%q:%s", values.Path, typedValue(rnd, values, 1000+uint32(i)))
			}
			part[i].Properties = []byte("{" + text + "}")
			if len(text) > 0 {
				part[i].Properties = []byte("{" + text[1:] + "}")
			}
			if rnd.IntN(10) > 0 {
				pick = append(pick, uint32(i))
				want[fmt.Sprint(part[i].Row)] = nativetest.Canonical(t, "{"+(members + text + ",\"\":null")[1:]+"}")
			}
		}
		first += uint32(n)
		if err := b.Append(part, typed, pick); err != nil {
			t.Fatal(err)
		}
	}
	if few := b.properties.root.byPath["few"]; !few.sparse {
		t.Errorf("the path of %d of %d rows is not sparse", few.values(), b.Rows())
	}
	got := decoded(t, b)
	if b.Rows() != len(want) {
		t.Errorf("%d rows, want %d", b.Rows(), len(want))
	}
	for i, row := range got["object_row"] {
		if diff := cmp.Diff(want[row], nativetest.Canonical(t, got["properties"][i])); diff != "" {
			t.Fatalf("row %s: -want +got\n%s", row, diff)
		}
	}
}
